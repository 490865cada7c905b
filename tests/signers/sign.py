"""Signs deliveries with the libraries of senders, and checks signatures of the edge as a receiver would.

sign.py SCHEME KEY ID SECONDS [URL]  body on standard input; prints one header per line, in the format of curl
sign.py verify KEY HEADERS           verifies a delivery as its receiver: body on standard input, headers as JSON
sign.py caller KEY SUBJECT SECONDS   prints the header with the token of a caller
sign.py shared TOKEN AUDIENCE KEY    verifies an assertion with a key that target and edge share, and prints its claims
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys


def standard_webhooks(key, body, delivery, seconds, url):
    """The library supports shared secrets only; a private key signs as the standard describes."""
    from standardwebhooks.webhooks import Webhook

    headers = {"webhook-id": delivery, "webhook-timestamp": str(seconds)}
    if key.startswith("whsk_"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(key.removeprefix("whsk_"))[:32])
        signature = private.sign(f"{delivery}.{seconds}.".encode() + body)
        return headers | {"webhook-signature": "v1a," + base64.b64encode(signature).decode()}
    at = datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc)
    signature = Webhook(key).sign(delivery, at, body.decode())
    return headers | {"webhook-signature": signature}


def stripe(key, body, delivery, seconds, url):
    from stripe import WebhookSignature

    signature = WebhookSignature._compute_signature(f"{seconds}.{body.decode()}", key)
    return {"stripe-signature": f"t={seconds},v1={signature}"}


def slack(key, body, delivery, seconds, url):
    from slack_sdk.signature import SignatureVerifier

    signature = SignatureVerifier(key).generate_signature(timestamp=str(seconds), body=body)
    return {"x-slack-request-timestamp": str(seconds), "x-slack-signature": signature}


def twilio(key, body, delivery, seconds, url):
    from twilio.request_validator import RequestValidator
    from urllib.parse import parse_qsl

    parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
    signature = RequestValidator(key).compute_signature(url, parameters)
    return {"x-twilio-signature": signature, "content-type": "application/x-www-form-urlencoded"}


def shopify(key, body, delivery, seconds, url):
    """Shopify has no library for signing."""
    signature = base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()
    return {"x-shopify-webhook-id": delivery, "x-shopify-hmac-sha256": signature}


def gitlab(key, body, delivery, seconds, url):
    return {"x-gitlab-token": key, "x-gitlab-event-uuid": delivery}


def message_signature(algorithm):
    def sign(key, body, delivery, seconds, url):
        from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

        class Resolver(HTTPSignatureKeyResolver):
            def resolve_private_key(self, key_id):
                return key.encode()

        class Request:
            method = "POST"
            headers = {}

        request = Request()
        request.url = url
        signer = HTTPMessageSigner(signature_algorithm=getattr(algorithms, algorithm), key_resolver=Resolver())
        signer.sign(
            request,
            key_id="first",
            created=datetime.datetime.fromtimestamp(seconds, tz=datetime.timezone.utc),
            covered_component_ids=("@method", "@target-uri", "content-digest"),
            body=body,
        )
        return {name.lower(): value for name, value in request.headers.items()}

    return sign


def jwt(key, body, delivery, seconds, url):
    import jwt

    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    claims = {
        "iss": "https://issuer.example",
        "aud": "hooks",
        "sub": "sender",
        "iat": seconds,
        "exp": seconds + 300,
        "jti": delivery,
        "body_sha256": digest,
    }
    return {"authorization": "Bearer " + jwt.encode(claims, key, algorithm="ES256", headers={"kid": "one"})}


def verify(key, headers, body):
    """Verifies with the library of Standard Webhooks, which supports shared secrets only, or with the public key."""
    if not key.startswith("whpk_"):
        from standardwebhooks.webhooks import Webhook

        return Webhook(key).verify(body.decode(), headers)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signatures = [it.split(",")[1] for it in headers["webhook-signature"].split(" ") if it.startswith("v1a,")]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    assert len(signatures) == 1, headers
    public.verify(base64.b64decode(signatures[0]), signed)


def caller(key, body, subject, seconds, url):
    import jwt

    claims = {"iss": "https://issuer.example", "aud": ["hooks"], "sub": subject, "iat": seconds, "exp": seconds + 3600}
    return {"authorization": "Bearer " + jwt.encode(claims, key, algorithm="ES256", headers={"kid": "one"})}


def shared(token, audience, key):
    import jwt

    return jwt.decode(token, key.encode(), algorithms=["HS256"], audience=audience)


SCHEMES = {
    "standard-webhooks": standard_webhooks,
    "stripe": stripe,
    "slack": slack,
    "twilio": twilio,
    "shopify": shopify,
    "gitlab": gitlab,
    "hmac-sha256": message_signature("HMAC_SHA256"),
    "ed25519": message_signature("ED25519"),
    "ecdsa-p256-sha256": message_signature("ECDSA_P256_SHA256"),
    "rsa-pss-sha512": message_signature("RSA_PSS_SHA512"),
    "jwt": jwt,
    "caller": caller,
}

if sys.argv[1] == "shared":
    print(json.dumps(shared(*sys.argv[2:5])))
elif sys.argv[1] == "verify":
    verify(sys.argv[2], json.loads(sys.argv[3]), sys.stdin.buffer.read())
else:
    scheme, key, delivery, seconds, url = (sys.argv[1:] + [""])[:5]
    headers = SCHEMES[scheme](key, sys.stdin.buffer.read(), delivery, int(seconds), url)
    for name, value in headers.items():
        print(f"{name}: {value}")
