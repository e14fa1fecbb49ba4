"""What a step was given is recorded without its secrets (I11)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.redact import MARK, SECRET_NAMES, is_secret_name, redacted


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
