"""A service that others call with access tokens (RFC 9068), and that calls others itself. Needs PyJWT and cryptography.

    service.py serve PORT SCOPE            answers callers whose token has this scope, over HTTPS on 127.0.0.1
    service.py call URL AUDIENCE [SCOPE]   asks for a token, and calls a service whose SPIFFE ID is AUDIENCE

IDENTITY is a folder with tls.crt, tls.key and ca.crt of the service's ServiceIdentity, SPIFFE_ID is its SPIFFE ID, ISSUER the URL of
the issuer of tokens, and ISSUER_CA a file with the authorities that vouch for the issuer's host.
"""

import base64
import hashlib
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

IDENTITY = os.environ["IDENTITY"]
SPIFFE_ID = os.environ["SPIFFE_ID"]
ISSUER = os.environ["ISSUER"]
# A token does not choose its algorithm.
ALGORITHMS = ["ES256"]
CLAIMS = ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]


class Refused(Exception):
    """Why a caller is refused: the status, and what is wrong."""


def context(authorities, purpose):
    """TLS with the certificate of the service, to peers that these authorities vouch for."""
    tls = ssl.create_default_context(purpose, cafile=authorities)
    tls.load_cert_chain(f"{IDENTITY}/tls.crt", f"{IDENTITY}/tls.key")
    return tls


def spiffe_id(certificate):
    """The SPIFFE ID of a peer whose chain was verified."""
    ids = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(ids) != 1:
        raise Refused(401, "the certificate has no SPIFFE ID")
    return ids[0]


def thumbprint(certificate):
    """The digest of a certificate in DER that a token may be bound to (RFC 8705 section 3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate).digest()).rstrip(b"=").decode()


def metadata(tls):
    """What the issuer says about itself (RFC 8414)."""
    with urllib.request.urlopen(f"{ISSUER}/.well-known/oauth-authorization-server", context=tls) as answer:
        found = json.load(answer)
    if found["issuer"] != ISSUER:
        raise SystemExit(f"{ISSUER} says that it is {found['issuer']}")
    return found


def verify(authorization, peer, certificate, keys, scope):
    """The claims of a token that the peer got for this service."""
    if len(authorization) != 1 or not authorization[0].lower().startswith("bearer "):
        raise Refused(401, "send one Authorization header with a bearer token")
    token = authorization[0][len("bearer ") :]
    try:
        typ = str(jwt.get_unverified_header(token).get("typ")).lower()
        if typ.removeprefix("application/") != "at+jwt":
            raise Refused(401, "it is another type of token")
        claims = jwt.decode(
            token,
            keys.get_signing_key_from_jwt(token),
            algorithms=ALGORITHMS,
            audience=SPIFFE_ID,
            issuer=ISSUER,
            options={"require": CLAIMS},
        )
    except (jwt.InvalidTokenError, jwt.PyJWKClientError) as error:
        raise Refused(401, str(error)) from error
    # The token belongs to the caller that got it. This holds when its certificate is renewed as well.
    if claims["client_id"] != peer:
        raise Refused(401, "the token was issued to another service")
    # One that is bound to a certificate is for this certificate only. A binding that is not understood is not ignored.
    if "cnf" in claims and claims["cnf"] != {"x5t#S256": thumbprint(certificate)}:
        raise Refused(401, "the token is bound to another certificate")
    if scope not in str(claims.get("scope", "")).split(" "):
        raise Refused(403, f"the token has no scope {scope}")
    return claims


def serve(port, scope):
    tls = context(f"{IDENTITY}/ca.crt", ssl.Purpose.CLIENT_AUTH)
    tls.verify_mode = ssl.CERT_REQUIRED
    issuer_tls = ssl.create_default_context(cafile=os.environ["ISSUER_CA"])
    # It asks again for a key that it does not know, and at most every few minutes for those that it does.
    keys = jwt.PyJWKClient(metadata(issuer_tls)["jwks_uri"], lifespan=300, ssl_context=issuer_tls)

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def setup(self):
            self.request.do_handshake()
            super().setup()

        def do_GET(self):
            try:
                peer = spiffe_id(self.request.getpeercert())
                certificate = self.request.getpeercert(binary_form=True)
                claims = verify(self.headers.get_all("Authorization") or [], peer, certificate, keys, scope)
                status, body = 200, {"caller": peer, "scopes": claims["scope"].split(" ")}
            except Refused as refused:
                status, body = refused.args[0], {"error": refused.args[1]}
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self):
            stream, address = super().get_request()
            return tls.wrap_socket(stream, server_side=True, do_handshake_on_connect=False), address

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", int(port)), Handler)
    print(f"serving on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def token(audience, scope):
    """A token for a service (RFC 6749 section 4.4), asked for with the certificate of this one."""
    tls = context(os.environ["ISSUER_CA"], ssl.Purpose.SERVER_AUTH)
    form = {"grant_type": "client_credentials", "audience": audience, **({"scope": scope} if scope else {})}
    request = urllib.request.Request(metadata(tls)["token_endpoint"], urllib.parse.urlencode(form).encode())
    try:
        with urllib.request.urlopen(request, context=tls) as answer:
            return json.load(answer)["access_token"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"no token: {error.read().decode()}") from error


def call(url, audience, scope=None):
    bearer = os.environ.get("TOKEN") or token(audience, scope)
    tls = context(f"{IDENTITY}/ca.crt", ssl.Purpose.SERVER_AUTH)
    # The callee is known by its SPIFFE ID, not by its host.
    tls.check_hostname = False
    target = urllib.parse.urlsplit(url)
    connection = http.client.HTTPSConnection(target.hostname, target.port, context=tls, timeout=10)
    connection.connect()
    callee = spiffe_id(connection.sock.getpeercert())
    if callee != audience:
        raise SystemExit(f"{url} is {callee}")
    connection.request("GET", target.path or "/", headers={"Authorization": f"Bearer {bearer}"})
    answer = connection.getresponse()
    print(answer.status, answer.read().decode())


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
