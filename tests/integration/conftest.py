"""Fixtures that several files here share."""

from collections.abc import AsyncIterator

import pytest

from tests.support.leasing import SETTINGS
from tests.support.world import World, open_world


@pytest.fixture
async def live(database_url: str, redis_url: str) -> AsyncIterator[World]:
    """A world whose due_work follows the log."""
    async with open_world(database_url, redis_url, **SETTINGS) as opened:
        yield opened
