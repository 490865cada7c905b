"""Verifies the assertion with which the edge hands on a delivery: the header Credence-Assertion, a JWT (RFC 7519).

A chain that verifies says only that the signer is some service of the trust domain. What counts is that it is the edge, and that the
assertion is about this delivery to this target. Needs PyJWT and cryptography.

    verify_assertion.py TRUST_BUNDLE EDGE AUDIENCE ASSERTION <BODY

TRUST_BUNDLE is a file with `ca.crt` of the trust bundle in the target's namespace, EDGE the SPIFFE ID of the edge, AUDIENCE the name of the
target, such as payments.shop.svc.
"""

import base64
import hashlib
import hmac
import json
import sys

import jwt
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

# Those of the edge's keys. The assertion does not choose.
ALGORITHMS = ["ES256", "EdDSA"]
MAX_CHAIN = 8


class Refused(Exception):
    """Why an assertion is not accepted."""


def signer(header, trust_bundle):
    """The certificate that has signed, if it chains to the trust bundle and is valid now."""
    encoded = header.get("x5c")
    if not isinstance(encoded, list) or not 0 < len(encoded) <= MAX_CHAIN:
        raise Refused("it has no certificate chain")
    leaf, *intermediates = [x509.load_der_x509_certificate(base64.b64decode(it, validate=True)) for it in encoded]
    store = Store(x509.load_pem_x509_certificates(trust_bundle))
    PolicyBuilder().store(store).build_client_verifier().verify(leaf, intermediates)
    return leaf


def verify(assertion, body, trust_bundle, edge, audience):
    """The claims, if the edge has made the assertion for this target and this body. `jti` is the delivery: remember it to act once."""
    try:
        header = jwt.get_unverified_header(assertion)
        if header.get("typ") != "JWT":
            raise Refused("it is another type of token")
        leaf = signer(header, trust_bundle)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if names.get_values_for_type(x509.UniformResourceIdentifier) != [edge]:
            raise Refused("its signer is not the edge")
        required = ["iss", "aud", "iat", "exp", "jti", "body_sha256"]
        claims = jwt.decode(
            assertion,
            leaf.public_key(),
            algorithms=ALGORITHMS,
            audience=audience,
            issuer=edge,
            options={"require": required},
        )
    except (jwt.InvalidTokenError, VerificationError, x509.ExtensionNotFound, TypeError, ValueError) as error:
        raise Refused(str(error)) from error
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=")
    if not hmac.compare_digest(str(claims["body_sha256"]).encode(), digest):
        raise Refused("it is about another body")
    return claims


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        bundle = file.read()
    try:
        print(json.dumps(verify(sys.argv[4], sys.stdin.buffer.read(), bundle, sys.argv[2], sys.argv[3])))
    except Refused as refused:
        sys.exit(f"refused: {refused}")
