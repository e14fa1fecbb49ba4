"""Waiting for a condition with a deadline: the only way tests wait."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


async def eventually(
    check: Callable[[], Result | Awaitable[Result]], timeout: float = 10.0, every: float = 0.02
) -> Result:
    """Call `check` (plain or async) every `every` seconds until it answers something truthy; that answer.

    An AssertionError in `check` means "not yet". After `timeout` seconds the test fails with what
    `check` said last.
    """
    deadline = time.monotonic() + timeout
    while True:
        said: object
        try:
            answer = check()
            result: Result = await answer if inspect.isawaitable(answer) else answer  # type: ignore[assignment]
            if result:
                return result
            said = result
        except AssertionError as error:
            said = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} seconds; the last answer was: {said!r}")
        await asyncio.sleep(every)
