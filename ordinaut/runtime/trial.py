"""Trying an entry that has killed before in a process of its own, so that it kills no other.

The parent writes what is to be decided to the child's stdin, as JSON, and only wants to know whether the
child comes through; then it decides itself.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import orjson

from ordinaut.domain.definition import load_definition
from ordinaut.domain.errors import NotPossible
from ordinaut.domain.task import Task
from ordinaut.runtime.entries import Entry, decide
from ordinaut.runtime.listening import Listener, Listening

PROGRAM = (sys.executable, "-m", "ordinaut.runtime.trial")

SECONDS = 20.0
"""How long the child may take; one that takes longer hangs."""


async def try_alone(entry: Entry, listening: Sequence[Listener]) -> None:
    """Let a child decide the entry. Raises NotPossible when it does not come through."""
    given = orjson.dumps(
        {
            "stream": entry.stream,
            "id": entry.id,
            "fields": [(name.hex(), value.hex()) for name, value in entry.fields.items()],
            "tasks": [
                (each.task.id, each.task.space, each.task.name, each.task.definition, each.source, each.part)
                for each in listening
            ],
        }
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = await asyncio.create_subprocess_exec(
        *PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            await child.communicate(given)
        ended = f"ended with {child.returncode}"
    except TimeoutError:
        ended = f"was not done after {SECONDS:g} s"
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode != 0:
        raise NotPossible(f"a process that tried to decide it {ended}: it would do so again")


def main() -> None:
    """The child: decide what is on stdin, and end well."""
    given = orjson.loads(sys.stdin.buffer.read())
    fields = {bytes.fromhex(name): bytes.fromhex(value) for name, value in given["fields"]}
    listeners = [
        Listener(
            Task(task_id, space, name, status="active", definition=definition),
            load_definition(definition, name),
            source,
            part,
        )
        for task_id, space, name, definition, source, part in given["tasks"]
    ]
    entry = Entry(given["stream"], given["id"], fields)
    decide(entry, Listening(listeners), now=datetime.now(UTC), space="default")


if __name__ == "__main__":
    main()
