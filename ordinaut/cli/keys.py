"""`ordinaut key …`: API keys, straight on the database (whoever has that needs no key)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from ordinaut.cli.database import database, operator_settings
from ordinaut.cli.output import instant, note, print_json, say, state, table
from ordinaut.runtime.keys import issue_key, list_keys, revoke_key
from ordinaut.runtime.system import System, open_system

ACTOR = "cli"


@asynccontextmanager
async def _system() -> AsyncIterator[System]:
    settings = operator_settings()
    async with database(settings):
        pass  # says in one sentence what is not there, where opening the system would wait for it
    async with open_system(settings) as system:
        yield system


def _run(work: Callable[[System], Coroutine[Any, Any, int]]) -> int:
    async def main() -> int:
        async with _system() as system:
            return await work(system)

    return asyncio.run(main())


def issue_command(agent: str, role: str, space: str | None, *, as_json: bool) -> int:
    """`ordinaut key issue`."""

    async def work(system: System) -> int:
        where = space or system.settings.space
        key_id, key = await issue_key(system, space=where, agent=agent, role=role, actor=ACTOR)
        if as_json:
            print_json({"id": key_id, "key": key, "agent": agent, "role": role, "space": where})
        else:
            note(f"A key of {agent} ({role} in the space {where}); its id is {key_id}. It is shown only now:")
            say(key)
        return 0

    return _run(work)


def list_command(space: str | None, *, as_json: bool) -> int:
    """`ordinaut key list`."""

    async def work(system: System) -> int:
        async with system.pool.acquire() as connection:
            found = await list_keys(connection, space or system.settings.space)
        rows = [
            {
                "id": each.id, "space": each.space, "agent": each.agent, "role": each.role,
                "created_at": each.created_at.isoformat(),
                "revoked_at": each.revoked_at.isoformat() if each.revoked_at else None,
            }
            for each in found
        ]  # fmt: skip
        if as_json:
            print_json(rows)
            return 0
        table(
            ("id", "agent", "role", "since", "state"),
            [
                (
                    str(row["id"]), str(row["agent"]), str(row["role"]), instant(row["created_at"]),
                    f"[dim]revoked {instant(row['revoked_at'])}[/]" if row["revoked_at"] else state("active"),
                )
                for row in rows
            ],
            empty="No keys.",
        )  # fmt: skip
        return 0

    return _run(work)


def revoke_command(key_id: str, space: str | None) -> int:
    """`ordinaut key revoke`."""

    async def work(system: System) -> int:
        await revoke_key(system, space=space or system.settings.space, key_id=key_id, actor=ACTOR)
        say(f"revoked {key_id}")
        return 0

    return _run(work)
