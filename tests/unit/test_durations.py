"""Durations: what is read, what is refused, and that reading undoes writing."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.durations import LONGEST, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1d", 86400),
        ("1w", 604800),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("1.5h", 5400),
        ("0", 0),
        ("0s", 0),
        (" 15M ", 900),
        ("PT15M", 900),
        ("P1D", 86400),
        ("P1W", 604800),
        ("P1DT2H", 93600),
        ("PT0.5S", 0.5),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "15",
        "-5s",
        "5x",
        "m",
        "30m1h",
        "1h1h",
        "P",
        "PT",
        "P1DT",
        "1h 30m",
        "٣s",
        "9" * 5000,
        "1s\x00",
    ],
)
def test_what_is_not_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="15m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["P1M", "P1Y", "P1Y2M3D", "P1MT5M"])
def test_months_and_years_are_refused_because_they_have_no_fixed_length(text: str) -> None:
    with pytest.raises(ValueError, match="no fixed length"):
        parse_duration(text)


def test_more_than_a_hundred_years_is_refused() -> None:
    with pytest.raises(ValueError, match="100 years"):
        parse_duration("999999999999d")


@given(st.timedeltas(min_value=timedelta(0), max_value=LONGEST))
def test_reading_undoes_writing(length: timedelta) -> None:
    assert parse_duration(format_duration(length)) == length


def test_the_canonical_form_is_short() -> None:
    assert [format_duration(parse_duration(text)) for text in ("90m", "PT24H", "1500ms", "0")] == [
        "1h30m",
        "1d",
        "1s500ms",
        "0s",
    ]
