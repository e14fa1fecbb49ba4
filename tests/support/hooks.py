"""Signing as webhooks' senders do, written from their documentation and not from our code."""

import base64
import hashlib
import hmac

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GITHUB_SECRET = "It's a Secret to Everybody"
STRIPE_SECRET = "whsec_test_0123456789abcdefghij"


def standard(body: bytes, seconds: int, message_id: str = "msg_1", *secrets: str) -> dict[str, str]:
    """The headers of Standard Webhooks, signed with each of `secrets`."""
    signatures = []
    for secret in secrets or (STANDARD_SECRET,):
        key = base64.b64decode(secret.split("_", 1)[-1])
        digest = hmac.digest(key, b"%s.%d.%s" % (message_id.encode(), seconds, body), hashlib.sha256)
        signatures.append("v1," + base64.b64encode(digest).decode())
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }


def github(
    body: bytes, secret: str = GITHUB_SECRET, delivery: str = "d-1", event: str = "push"
) -> dict[str, str]:
    """The headers of a GitHub delivery."""
    digest = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    return {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": delivery, "X-GitHub-Event": event}


def stripe(body: bytes, seconds: int, *secrets: str) -> dict[str, str]:
    """The header of a Stripe event, signed with each of `secrets`."""
    signed = b"%d.%s" % (seconds, body)
    parts = [
        f"v1={hmac.digest(secret.encode(), signed, hashlib.sha256).hex()}"
        for secret in secrets or (STRIPE_SECRET,)
    ]
    return {"Stripe-Signature": ",".join([f"t={seconds}", *parts, "v0=" + "6" * 64])}
