"""Webhooks' signatures: the senders' own examples verify, and nothing that was altered does."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.signature import key_of, refusal
from tests.support import hooks as sign

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
BODY = b'{"id": "evt_1", "type": "paid", "amount": 12}'
SECRETS = {"standard": sign.STANDARD_SECRET, "github": sign.GITHUB_SECRET, "stripe": sign.STRIPE_SECRET}
KINDS = tuple(SECRETS)
OTHER = {"standard": "whsec_" + base64.b64encode(b"o" * 24).decode(), "github": "x", "stripe": "whsec_y"}


def signed(kind: str, body: bytes = BODY, seconds: int = SECONDS, *secrets: str) -> dict[str, str]:
    if kind == "github":
        return lower(sign.github(body, *secrets[:1]))
    if kind == "standard":
        return lower(sign.standard(body, seconds, "msg_1", *secrets))
    return lower(sign.stripe(body, seconds, *secrets))


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def judged(kind: str, headers: dict[str, str], body: bytes = BODY, *secrets: str, now: datetime = NOW) -> Any:
    keys = [key_of(kind, secret) for secret in secrets or (SECRETS[kind],)]
    return refusal(kind, headers, body, keys, now)


def test_the_example_of_standard_webhooks_verifies() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    now, body = datetime.fromtimestamp(1614265330, UTC), b'{"test": 2432232314}'
    assert judged("standard", headers, body, now=now) is None
    assert judged("standard", headers, body, sign.STANDARD_SECRET.removeprefix("whsec_"), now=now) is None


def test_the_example_of_github_verifies() -> None:
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert judged("github", {"x-hub-signature-256": f"sha256={digest}"}, b"Hello, World!") is None


def test_an_example_of_stripe_verifies() -> None:
    """Stripe publishes none; this is OpenSSL's: printf '%s' '1492774577.{"id": "evt_1"}' | openssl dgst
    -sha256 -hmac whsec_abc"""
    digest = "b198b2212139422f6597fab02aec06b6910c274569cd2e5379e9814543a23111"
    header = {"stripe-signature": f"t=1492774577,v1={digest},v0={'6f' * 32}"}
    now = datetime.fromtimestamp(1492774577, UTC)
    assert judged("stripe", header, b'{"id": "evt_1"}', "whsec_abc", now=now) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_secret_signed_is_believed_and_what_another_signed_is_not(kind: str) -> None:
    assert judged(kind, signed(kind)) is None
    assert judged(kind, signed(kind), BODY, OTHER[kind]) == "wrong"
    assert refusal(kind, signed(kind), BODY, [], NOW) == "wrong"


@pytest.mark.parametrize("kind", KINDS)
def test_while_a_secret_is_replaced_either_is_believed(kind: str) -> None:
    both = (SECRETS[kind], OTHER[kind])
    assert judged(kind, signed(kind, BODY, SECONDS, both[0]), BODY, *both) is None
    assert judged(kind, signed(kind, BODY, SECONDS, both[1]), BODY, *both) is None
    if kind != "github":  # it signs with one secret only
        assert judged(kind, signed(kind, BODY, SECONDS, *both), BODY, both[1]) is None


@pytest.mark.parametrize("kind", ["standard", "stripe"])
def test_a_timestamp_may_be_five_minutes_off_and_no_more(kind: str) -> None:
    headers = signed(kind)
    for minutes, reason in ((5, None), (-5, None), (5.1, "old"), (-5.1, "ahead"), (10**6, "old")):
        assert judged(kind, headers, now=NOW + timedelta(minutes=minutes)) == reason
    assert judged(kind, headers, BODY + b" ", now=NOW + timedelta(days=1)) == "wrong"


def test_github_signs_no_time() -> None:
    assert judged("github", signed("github"), now=NOW + timedelta(days=1000)) is None


@given(st.sampled_from(KINDS), st.binary(max_size=40), st.data())
def test_no_altered_byte_of_the_body_verifies(kind: str, body: bytes, data: st.DataObject) -> None:
    headers = signed(kind, body)
    assert judged(kind, headers, body) is None
    other = data.draw(st.binary(max_size=41).filter(lambda drawn: drawn != body))
    assert judged(kind, headers, other) == "wrong"
    if body:
        place = data.draw(st.integers(0, len(body) - 1))
        bit = 1 << data.draw(st.integers(0, 7))
        altered = body[:place] + bytes([body[place] ^ bit]) + body[place + 1 :]
        assert judged(kind, headers, altered) == "wrong"


@given(st.sampled_from(KINDS), st.data())
def test_no_altered_character_of_a_signed_header_verifies(kind: str, data: st.DataObject) -> None:
    headers = signed(kind)
    names = sorted(name for name in headers if not name.startswith("x-github"))
    name = data.draw(st.sampled_from(names))
    # What is behind Stripe's v1 is another version of the signature, which is not looked at.
    value = headers[name].partition(",v0=")[0]
    place = data.draw(st.integers(0, len(value) - 1))
    letters = st.characters(min_codepoint=0x20, max_codepoint=0xFF)
    letter = data.draw(letters.filter(lambda drawn: drawn != value[place]))
    altered = value[:place] + letter + value[place + 1 :]
    assert judged(kind, headers | {name: altered}) is not None


@given(st.sampled_from(KINDS), st.text(st.characters(max_codepoint=0xFF), max_size=90))
def test_whatever_is_in_the_headers_is_refused_in_words(kind: str, text: str) -> None:
    headers = dict.fromkeys(signed(kind), text)
    assert judged(kind, headers) in ("missing", "malformed", "wrong")


@pytest.mark.parametrize(
    ("kind", "changed", "reason"),
    [
        ("standard", {"webhook-id": None}, "missing"),
        ("standard", {"webhook-timestamp": None}, "missing"),
        ("standard", {"webhook-signature": None}, "missing"),
        ("standard", {"webhook-timestamp": "hello"}, "malformed"),
        ("standard", {"webhook-timestamp": "1" * 13}, "malformed"),
        ("standard", {"webhook-id": "a.b"}, "malformed"),
        ("standard", {"webhook-id": "x" * 201}, "malformed"),
        ("standard", {"webhook-signature": "v2,def"}, "malformed"),
        ("standard", {"webhook-signature": "v1a,abc v2,def"}, "asymmetric"),
        ("standard", {"webhook-signature": "v1a,abc v1,def"}, "wrong"),
        ("standard", {"webhook-signature": "v1,"}, "wrong"),
        ("github", {"x-hub-signature-256": None}, "missing"),
        ("github", {"x-hub-signature-256": "sha1=00"}, "malformed"),
        ("github", {"x-hub-signature-256": "sha256="}, "wrong"),
        ("stripe", {"stripe-signature": None}, "missing"),
        ("stripe", {"stripe-signature": "v1=00"}, "malformed"),
        ("stripe", {"stripe-signature": "t=1,t=2,v1=00"}, "malformed"),
        ("stripe", {"stripe-signature": "t=1,v0=00"}, "malformed"),
        ("stripe", {"stripe-signature": "t=x,v1=00"}, "malformed"),
    ],
)
def test_what_is_wrong_with_a_signature_is_told(
    kind: str, changed: dict[str, str | None], reason: str
) -> None:
    headers = {name: value for name, value in (signed(kind) | changed).items() if value is not None}
    assert judged(kind, headers) == reason


def test_a_signature_among_others_is_found() -> None:
    headers = signed("standard")
    other = "Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
    headers["webhook-signature"] = (
        f"v1,{other} v1a,{other} v2,{other} {headers['webhook-signature']} v1,{other}"
    )
    assert judged("standard", headers) is None


@pytest.mark.parametrize("secret", ["whpk_TWY=", "whsk_TWY="])
def test_one_of_a_key_pair_is_no_secret_and_the_error_says_so(secret: str) -> None:
    with pytest.raises(ValueError, match="`v1a`") as refused:
        key_of("standard", secret)
    assert "TWY" not in str(refused.value)


@pytest.mark.parametrize("secret", ["whsec_", "", "whsec_not base64", "whsec_Mf"])
def test_a_standard_secret_must_be_base64_and_the_error_does_not_show_it(secret: str) -> None:
    with pytest.raises(ValueError) as refused:
        key_of("standard", secret)
    assert "not base64 " not in str(refused.value) and "Mf" not in str(refused.value)
