"""The Service behind a WebhookEndpoint: accepts every request, and prints it with the headers of the edge."""

import http.server
import sys


class Target(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        print(self.headers["idempotency-key"], self.headers["credence-assertion"], body.decode(), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Target) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
