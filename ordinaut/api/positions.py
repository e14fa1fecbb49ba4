"""Read-your-writes: a command answers with `Ordinaut-Position: N`; a GET that sends `Ordinaut-Wait: N`
sees at least what the log held at N."""

import asyncio
import time
from collections.abc import Collection

import asyncpg
from fastapi import Request

from ordinaut.api.problems import BadRequest
from ordinaut.domain.errors import Unavailable
from ordinaut.log.append import Connection

POSITION = "Ordinaut-Position"
WAIT = "Ordinaut-Wait"
MOST_SECONDS = 5.0
EVERY_SECONDS = 0.01


async def has_reached(connection: Connection, names: Collection[str], stream: str, version: int) -> bool:
    """Whether all these projections hold what the log does up to this event."""
    reached: bool | None = await connection.fetchval(
        """SELECT position <= (SELECT min(position) FROM projection_checkpoints WHERE name = ANY ($3))
             FROM events WHERE stream = $1 AND version = $2""",
        stream, version, list(names),
    )  # fmt: skip
    return bool(reached)


class Positions:
    """How far the projections are. However many requests wait, one query at a time asks."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._positions: dict[str, int] = {}
        self._head = 0
        self._asking: asyncio.Task[None] | None = None

    async def wait(self, request: Request, names: Collection[str]) -> None:
        """Wait until every projection in `names` has reached what the request's `Ordinaut-Wait` says.

        Raises `BadRequest` for a position the log has not, `Unavailable` after `MOST_SECONDS`.
        """
        given = request.headers.get(WAIT)
        if given is None:
            return
        if not (given.isascii() and given.isdigit() and len(given) < 20):
            raise BadRequest.header(WAIT, f"{given[:40]!r} is not a position", f"what {POSITION} said")
        wanted = int(given)
        deadline = time.monotonic() + MOST_SECONDS
        asked = 0
        while not self._reached(wanted, names):
            await self._ask()
            asked += 1
            if self._reached(wanted, names):
                return
            # The first answer may be to a question that was under way before this request came.
            if self._head < wanted and asked > 1:
                raise BadRequest.header(WAIT, f"the log ends at {self._head}", f"what {POSITION} said")
            if time.monotonic() > deadline:
                behind = ", ".join(f"{n} at {self._positions.get(n, 0)}" for n in names)
                raise Unavailable(
                    f"the read tables have not reached position {wanted} within {MOST_SECONDS:g} s"
                    f" ({behind}); is the role `projector` running?"
                )
            await asyncio.sleep(EVERY_SECONDS)

    def _reached(self, wanted: int, names: Collection[str]) -> bool:
        return self._head >= wanted and all(self._positions.get(name, 0) >= wanted for name in names)

    async def _ask(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._refresh())
        await asyncio.shield(self._asking)

    async def _refresh(self) -> None:
        rows = await self._pool.fetch(
            "SELECT h.position AS head, c.name, c.position FROM log_head h"
            " LEFT JOIN projection_checkpoints c ON true"
        )
        self._head = rows[0]["head"]
        self._positions = {row["name"]: row["position"] for row in rows if row["name"]}
