"""Notifications while their database cannot be reached."""

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from structlog.testing import capture_logs

from ordinaut.log.wake import LOG, Notifications
from tests.support.eventually import eventually
from tests.support.running import running


def _levels(lines: Sequence[MutableMapping[str, Any]]) -> list[tuple[str, str]]:
    return [(line["event"], line["log_level"]) for line in lines]


async def test_a_database_that_refuses_again_and_again_is_reported_once() -> None:
    tries = 0

    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with capture_logs() as lines:
            async with running(Notifications(f"postgresql://nobody@127.0.0.1:{port}/nothing")):
                await eventually(lambda: tries >= 3)
    assert _levels(lines) == [("notifications.lost", "warning")]


async def test_who_hears_is_woken_and_the_log_says_so_when_the_database_is_back(database_url: str) -> None:
    parts = urlsplit(database_url)
    name, heard = parts.path.lstrip("/"), list[str]()
    # A session elsewhere: nobody may shut the database that he is in.
    other = await asyncpg.connect(parts._replace(path="/postgres").geturl())
    notifications = Notifications(database_url)
    notifications.hear(LOG, heard.append)
    try:
        with capture_logs() as lines:
            await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            async with running(notifications):
                await eventually(lambda: lines)
                await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
                await eventually(lambda: heard)
    finally:
        await other.close()
    assert heard == [""]
    assert _levels(lines) == [("notifications.lost", "warning"), ("notifications.recovered", "info")]
