"""What a step was given is recorded without its secrets (I11)."""

import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.redact import MARK, SECRET_NAMES, SHORTEST, Blotter, is_secret_name, redacted


@pytest.mark.parametrize(
    "name", ["Authorization", "API-Key", "api_key", "X-Api-Key", "PASSWORD", "client_secret", "Set-Cookie"]
)
def test_a_secret_is_known_by_its_name_however_it_is_written(name: str) -> None:
    assert redacted({name: "hush"}) == {name: MARK}


@pytest.mark.parametrize("name", ["author", "tokens_used", "key", "passenger", ""])
def test_a_name_that_only_resembles_one_is_left_alone(name: str) -> None:
    assert redacted({name: "said"}) == {name: "said"}


def test_secrets_are_found_at_any_depth() -> None:
    value = {"headers": [{"authorization": {"scheme": "Bearer", "token": "hush"}}], "url": "http://x"}
    assert redacted(value) == {"headers": [{"authorization": MARK}], "url": "http://x"}


def test_what_was_given_is_not_changed_by_recording_it() -> None:
    value = {"list": [{"password": "hush"}]}
    redacted(value)
    assert value == {"list": [{"password": "hush"}]}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://me:hush@example.org/a", "https://[redacted]@example.org/a"),
        ("https://hush@example.org?x=1", "https://[redacted]@example.org?x=1"),
        ("http://h/?a=1&api_key=hush&b=2#c", "http://h/?a=1&api_key=[redacted]&b=2#c"),
        ("http://h/?Access%2DToken=hush", "http://h/?Access%2DToken=[redacted]"),
        ("see http://h/?token=hush and http://h/?n=1", "see http://h/?token=[redacted] and http://h/?n=1"),
        ("http://h/path@x?author=me&key=1", "http://h/path@x?author=me&key=1"),
        ("mail me@example.org", "mail me@example.org"),
    ],
)
def test_a_url_is_recorded_without_its_credentials(url: str, told: str) -> None:
    assert redacted({"url": url}) == {"url": told}


names = st.sampled_from([*sorted(SECRET_NAMES), "Api-Key", "X_API_KEY"]) | st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def leaks(value: Any) -> list[Any]:
    if isinstance(value, dict):
        under = [member for name, member in value.items() if is_secret_name(name) and member != MARK]
        return under + [leak for member in value.values() for leak in leaks(member)]
    return [leak for item in value for leak in leaks(item)] if isinstance(value, list) else []


@given(values)
def test_nothing_under_a_secret_name_is_left(value: Any) -> None:
    clean = redacted(value)
    assert leaks(clean) == []
    assert redacted(clean) == clean


@given(values)
def test_what_holds_no_secret_is_the_same_object(value: Any) -> None:
    if not leaks(value) and redacted(value) == value:
        assert redacted(value) is value


secrets = st.text(min_size=SHORTEST, max_size=20).filter(lambda secret: secret not in MARK)
around = st.text("xyz", max_size=5)


@given(secrets, around, around)
def test_nothing_is_left_of_a_secret_wherever_it_stands(secret: str, before: str, after: str) -> None:
    ways = [secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]]
    texts = [before + way + after for way in ways]
    value = {"a": texts, texts[0]: {"b": texts[1]}, "n": None, "yes": True}
    clean = [before + MARK + after] * 4
    assert Blotter([secret]).value(value) == {"a": clean, clean[0]: {"b": clean[1]}, "n": None, "yes": True}


@given(secrets.filter(lambda secret: secret.isalnum() and secret.isascii()), st.integers(4, 5))
def test_the_beginning_of_a_secret_at_the_end_of_an_error_goes_too(secret: str, length: int) -> None:
    assert Blotter([secret]).error(f"cut: {secret[:length]}") == f"cut: {MARK}"


def test_a_secret_that_holds_another_leaves_nothing() -> None:
    assert Blotter(["secret", "my secret is long"]).text("so: my secret is long.") == f"so: {MARK}."


def test_a_number_that_is_a_secret_is_found_and_a_short_one_is_not_looked_for() -> None:
    blotter = Blotter(["123456", "7890"])
    assert blotter.value([123456, 1234567, 7890, "7890", True]) == [MARK, 1234567, 7890, "7890", True]
    assert not Blotter(["7890"])
