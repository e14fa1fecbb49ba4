"""Roles at work inside a test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol


class Role(Protocol):
    """What `ordinaut serve` runs."""

    async def run(self, stop: asyncio.Event) -> None: ...


@asynccontextmanager
async def running(*roles: Role) -> AsyncIterator[None]:
    """Run these roles while the block lasts, then let them end in order. A role that fails fails the test."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(role.run(stop)) for role in roles]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)
