"""Verifies an access token with joserfc and what its issuer publishes, and prints its claims, or why it is refused.

verify_token.py ISSUER AUTHORITIES AUDIENCE TOKEN   AUTHORITIES is a file with those that vouch for the issuer's host
"""

import json
import ssl
import sys
import urllib.request

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet


def read(url, tls):
    with urllib.request.urlopen(url, context=tls) as answer:
        return json.load(answer)


def verify(issuer, authorities, audience, token):
    tls = ssl.create_default_context(cafile=authorities)
    metadata = read(f"{issuer}/.well-known/oauth-authorization-server", tls)
    assert metadata["issuer"] == issuer, metadata
    keys = KeySet.import_key_set(read(metadata["jwks_uri"], tls))
    found = jwt.decode(token, keys, algorithms=["ES256"])
    assert found.header["typ"] == "at+jwt", found.header
    exactly = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": audience}}
    present = {name: {"essential": True} for name in ("sub", "exp", "iat", "jti", "client_id")}
    jwt.JWTClaimsRegistry(**exactly, **present).validate(found.claims)
    return found.claims


try:
    print(json.dumps(verify(*sys.argv[1:])))
except JoseError as refused:
    sys.exit(f"refused: {refused}")
