"""Signatures of webhooks: HMAC-SHA256 over the body as it came, in the ways of three kinds of senders.

- `standard`: Standard Webhooks 1.0 (https://www.standardwebhooks.com): `webhook-id`, `webhook-timestamp`,
  `webhook-signature` with one or more `v1,<base64>`; the secret is base64, mostly behind `whsec_`. Signatures
  by a private key (`v1a`, ed25519) are not verified.
- `github`: `X-Hub-Signature-256: sha256=<hex>`.
- `stripe`: `Stripe-Signature: t=<seconds>,v1=<hex>`, several `v1` while a secret is replaced.

Signatures are compared as they are written, in constant time: one that is written in another way (upper case,
other bits in base64's last character) is another one.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

Reason = Literal["missing", "malformed", "asymmetric", "wrong", "old", "ahead", "secret"]
"""Why a delivery is refused; `asymmetric`: it is signed by a private key alone; `secret`: the secret to hold
it against is not there."""

TOLERANCE_SECONDS = 300
"""How far a signed timestamp may be from now, before or after."""

_PREFIX = "whsec_"
_KEY_PAIR = ("whpk_", "whsk_")
# A dot would let the same signed bytes be read as another id, timestamp and body.
_ID = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,200}")
_SECONDS = re.compile(r"[0-9]{1,12}")


def key_of(kind: str, secret: str) -> bytes:
    """The key that a secret of this kind stands for. Raises ValueError (without the secret in it)."""
    if kind != "standard":
        return secret.encode()
    if secret.startswith(_KEY_PAIR):
        raise ValueError("is a key for signatures `v1a` (ed25519), and only `v1` is verified here")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64, behind whsec_ or alone") from None
    if not key:
        raise ValueError("is empty")
    return key


def refusal(
    kind: str, headers: Mapping[str, str], raw: bytes, keys: Sequence[bytes], now: datetime
) -> Reason | None:
    """Why a delivery is not to be believed; None when one of `keys` has signed it, within the tolerance.

    `headers` are by lower-case name, in Latin-1 as HTTP has them. What is old or ahead was signed by a
    key: somebody sends it again, or a clock is wrong.
    """
    if kind == "github":
        return _github(headers, raw, keys)
    signed = _standard(headers, raw) if kind == "standard" else _stripe(headers, raw)
    if isinstance(signed, str):
        return signed
    content, seconds, given = signed
    encode = _base64 if kind == "standard" else _hex
    if not _matches(given, [encode(_hmac(key, content)) for key in keys]):
        return "wrong"
    return _in_time(seconds, now)


def _github(headers: Mapping[str, str], raw: bytes, keys: Sequence[bytes]) -> Reason | None:
    header = headers.get("x-hub-signature-256")
    if header is None:
        return "missing"
    if not header.startswith("sha256="):
        return "malformed"
    expected = [b"sha256=" + _hex(_hmac(key, raw)) for key in keys]
    return None if _matches([header.encode("latin-1")], expected) else "wrong"


Signed = tuple[bytes, int, list[bytes]]
"""What was signed, when (seconds since the epoch), and the signatures that came with it."""


def _standard(headers: Mapping[str, str], raw: bytes) -> Signed | Reason:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    found = [headers.get(name) for name in names]
    message_id, seconds, signatures = found
    if message_id is None or seconds is None or signatures is None:
        return "missing"
    # Of versions that are not known here none can be believed: they are left out.
    parts = signatures.split(" ")
    given = [part[3:].encode("latin-1") for part in parts if part.startswith("v1,")]
    if not given and any(part.startswith("v1a,") for part in parts):
        return "asymmetric"
    if not given or not _ID.fullmatch(message_id) or not _SECONDS.fullmatch(seconds):
        return "malformed"
    return f"{message_id}.{seconds}.".encode() + raw, int(seconds), given


def _stripe(headers: Mapping[str, str], raw: bytes) -> Signed | Reason:
    header = headers.get("stripe-signature")
    if header is None:
        return "missing"
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    given = [value.encode("latin-1") for name, _, value in parts if name == "v1"]
    if not given or len(times) != 1 or not _SECONDS.fullmatch(times[0]):
        return "malformed"
    return f"{times[0]}.".encode() + raw, int(times[0]), given


def _in_time(seconds: int, now: datetime) -> Reason | None:
    late = now.timestamp() - seconds
    if late > TOLERANCE_SECONDS:
        return "old"
    return "ahead" if late < -TOLERANCE_SECONDS else None


def _matches(given: Sequence[bytes], expected: Sequence[bytes]) -> bool:
    # All are compared, whichever fits: how long it takes tells nothing.
    return sum(hmac.compare_digest(one, other) for one in given for other in expected) > 0


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _base64(digest: bytes) -> bytes:
    return base64.b64encode(digest)


def _hex(digest: bytes) -> bytes:
    return digest.hex().encode()
