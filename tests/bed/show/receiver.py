"""A receiver of webhooks with its own certificate; prints each request.

receiver.py CERTIFICATE KEY
"""

import http.server
import json
import ssl
import sys


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        print(json.dumps({"headers": headers, "body": body.decode()}), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(*sys.argv[1:3])
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()
