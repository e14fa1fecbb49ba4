"""Schedules that ask for too much are refused with the reason, or cost little, whatever they say."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.schedules.spec import normalise_schedule, parse_schedule
from tests.support.processes import ROOT
from tests.unit.schedules.hostile import BOUNDED, CREATED, LATER, LONGEST, REFUSED, drawn, outcome
from tests.unit.schedules.rules import rules

DRAWN = 300


def test_hostile_schedules_are_read_with_64_mb_and_bounded_work(seed: int) -> None:
    """In a process that the kernel ends when it takes more."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.unit.schedules.hostile", str(seed), str(DRAWN)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr[-2000:]
    told = json.loads(answer.stdout)
    for (spec, word), (_, reason) in zip(REFUSED, told, strict=False):
        assert word in reason and reason, (str(spec)[:200], reason)
    for spec, reason in told[len(REFUSED) : len(REFUSED) + len(BOUNDED) + 1]:
        assert reason == "", str(spec)[:200]
    assert len(told) == len(REFUSED) + len(BOUNDED) + 1 + DRAWN
    assert 0 < sum(reason == "" for _, reason in told[-DRAWN:]) < DRAWN


def test_the_limits_of_that_process_are_real() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); bytearray(2**28)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode != 0 and "MemoryError" in answer.stderr


KINDS = st.sampled_from(["cron", "rrule", "once", "every"])
ANYTHING = st.text(max_size=LONGEST)
CLOSE = st.text(alphabet="0123456789*/,-#LWTZPHMSFREQ=DAILY;BYCOUNT:\n @.+", max_size=300)
FIELDS = st.dictionaries(
    st.sampled_from(["timezone", "dtstart", "anchor", "rdate", "exdate", "start", "end"]),
    ANYTHING | st.lists(CLOSE, max_size=5) | st.none() | st.integers() | st.floats(),
    max_size=2,
)


@settings(max_examples=400, deadline=None)
@given(KINDS, ANYTHING | CLOSE | rules(most=10**6), FIELDS)
def test_any_schedule_is_read_or_refused(kind: str, text: str, more: dict[str, Any]) -> None:
    spec = {kind: text, **more}
    try:
        schedule = parse_schedule(spec, created_at=CREATED)
    except Invalid as refused:
        assert all(fault.message for fault in refused.faults)
        return
    at = schedule.next_after(LATER)
    assert at is None or at > LATER
    assert parse_schedule(normalise_schedule(spec, CREATED), created_at=LATER).next_after(LATER) == at


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_is_drawn_to_be_hard_goes_on_in_order(chance: Any) -> None:
    spec = drawn(chance)
    if outcome(spec):
        return
    schedule = parse_schedule(spec, created_at=CREATED)
    at = schedule.next_after(CREATED)
    for _ in range(5):
        if at is None:
            break
        assert schedule.next_after(at - timedelta(microseconds=1)) == at
        following = schedule.next_after(at)
        assert following is None or following > at
        at = following


@pytest.mark.parametrize("spec", BOUNDED, ids=lambda spec: str(spec)[:40])
def test_what_is_bounded_is_counted_no_further_than_asked(spec: Any) -> None:
    schedule = parse_schedule(spec, created_at=CREATED)
    count, capped = schedule.count_between(CREATED, CREATED + timedelta(days=36_500), 100)
    assert count == 100 if capped else schedule.kind == "every" or count <= 100
