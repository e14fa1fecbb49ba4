"""Holding entries of one stream against a thousand tasks that listen to it, one in a hundred of which match.

From an entry's fields, as Redis gives them, to the input of every run that it starts: nothing is appended.
Measured in processor time, so per core; once with tasks ruled out by their conditions, and once with every
condition evaluated, which says what that is worth.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ordinaut.domain.definition import load_definition, parse_definition
from ordinaut.domain.matching import envelope, match, parse_entry
from ordinaut.domain.task import Task
from ordinaut.runtime.listening import Listener, Listening

TASKS, KINDS = 1000, 100
ENTRIES, PLAIN_ENTRIES = 5000, 200
TRIES = 3


def _listening() -> Listening:
    found = []
    for number in range(TASKS):
        document = {
            "name": f"task-{number}",
            "on": {
                "stream": "orders",
                "where": f"data.kind == 'kind-{number % KINDS}' && data.amount > `10`",
                "input": {"order": "${data.id}", "amount": "${data.amount}"},
            },
            "pipeline": [{"id": "say", "uses": "debug.echo"}],
        }
        definition = parse_definition(document, created_at=datetime.now(UTC), known_tools=None).normalised()
        task = Task(f"id-{number}", name=f"task-{number}", status="active", definition=definition, version=1)
        found.append(Listener(task, load_definition(definition, task.name), "orders"))
    return Listening(found)


def _per_second(listening: Listening, entries: Sequence[bytes], *, indexed: bool) -> float:
    begin, matched = time.process_time(), 0
    for number, raw in enumerate(entries):
        seen = envelope(parse_entry({b"data": raw}), stream="orders", entry_id=f"{number}-0")
        for listener in listening.concerned(seen) if indexed else listening:
            matched += match(listener.trigger, seen) is not None
    if matched != len(entries) * TASKS // KINDS:
        raise RuntimeError(f"{matched} matches; the benchmark is wrong")
    return len(entries) / (time.process_time() - begin)


def measured() -> list[dict[str, Any]]:
    """A row for each try: entries matched a second and core, with the index and without."""
    listening = _listening()
    entries = [
        orjson.dumps({"id": n, "kind": f"kind-{n % KINDS}", "amount": 120, "customer": {"name": "Ana"}})
        for n in range(ENTRIES)
    ]
    _per_second(listening, entries[:KINDS], indexed=True)  # compiles what is compiled on first use
    return [
        {
            "entries_per_s": _per_second(listening, entries, indexed=True),
            "plain_entries_per_s": _per_second(listening, entries[:PLAIN_ENTRIES], indexed=False),
        }
        for _ in range(TRIES)
    ]
