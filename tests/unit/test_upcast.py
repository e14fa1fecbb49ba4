"""Old events can be read for ever: a golden corpus of every event type in every schema version written."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ordinaut.domain import backfill, deadletter, hook, run, space, task, upcast
from ordinaut.domain.definition import load_definition
from ordinaut.domain.events import EVENT_TYPES, SCHEMA_VERSION, Event
from ordinaut.domain.patterns import Pattern
from ordinaut.domain.trigger import PATTERNS

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("v*/*.json"))


def read(path: Path) -> Event:
    """An event of the corpus; the files hold envelopes as `GET /v1/log` shows them."""
    envelope = json.loads(path.read_text())
    return Event(**envelope | {"at": datetime.fromisoformat(envelope["at"])})


def test_every_event_type_of_every_version_is_in_the_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {f"v{n}" for n in range(1, SCHEMA_VERSION + 1)}
    newest = {read(path).type for path in FILES if path.parent.name == f"v{SCHEMA_VERSION}"}
    assert newest == EVENT_TYPES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_event_ever_written_can_be_read_and_folded(path: Path) -> None:
    written = read(path)
    assert path.stem.split(".")[0] == written.type
    assert written.schema == int(path.parent.name[1:])
    event = upcast.upcast(written)
    assert event.schema == SCHEMA_VERSION
    assert (event.position, event.stream, event.version) == (
        written.position,
        written.stream,
        written.version,
    )
    kind, _, key = event.stream.partition("-")
    if kind == "task":
        known = task.Task(key)
        task.evolve(known, event)
        assert known.stream_version == event.version
        if event.type in ("TaskCreated", "TaskChanged"):
            assert load_definition(known.definition, known.name).steps
    elif kind == "run":
        done = run.Run(key)
        run.evolve(done, event)
        assert done.stream_version == event.version
        if event.type == "EventCollected":
            assert Pattern.from_data(event.data["pattern"]).kind in PATTERNS
    elif kind == "backfill":
        asked = backfill.Backfill(key)
        backfill.evolve(asked, event)
        assert asked.stream_version == event.version
    elif kind == "hook":
        known_hook = hook.fold("default", "github", [event])
        assert (known_hook.version, known_hook.exists) == (event.version, event.type == "HookDefined")
    elif kind == "space":
        there = space.fold(key, [event])
        assert (there.version, there.minimum_interval) == (event.version, timedelta(seconds=10))
    elif kind == "window":
        assert event.data["count"] == len(event.data["positions"])
    elif event.type in ("EventRejected", "EventRequeued", "EventDropped"):
        letter = deadletter.DeadLetter(key)
        deadletter.evolve(letter, event)
        assert letter.stream_version == event.version
    else:
        assert kind in ("event", "agent")


def event(schema: int, data: dict[str, object] | None = None) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(1, "default", "run-1", 1, "RunStarted", schema, at, "a", "c", None, data or {})


def test_an_event_of_the_current_version_is_left_as_it_is() -> None:
    current = event(SCHEMA_VERSION, {"attempt": 1})
    assert upcast.upcast(current) is current


def test_an_event_from_a_newer_program_is_refused_loudly() -> None:
    with pytest.raises(ValueError, match=r"run-1/1 has schema version \d+, this program knows up to"):
        upcast.upcast(event(SCHEMA_VERSION + 1))


def test_an_old_event_is_lifted_one_version_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def lift(one: Event) -> Event:
        return event(one.schema + 1, one.data | {f"lifted_from_{one.schema}": True})

    monkeypatch.setattr(upcast, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(upcast, "UPCASTERS", {("RunStarted", 1): lift, ("RunStarted", 2): lift})
    lifted = upcast.upcast(event(1))
    assert (lifted.schema, lifted.data) == (3, {"lifted_from_1": True, "lifted_from_2": True})
