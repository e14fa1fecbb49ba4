"""The whole system's wiring, and `ordinaut serve ROLE…`, which runs any part of it in one process.

A role is given the `System` and runs until it is told to stop. Roles never call one another: they meet
in PostgreSQL and Redis, so it is all the same which of them share a process or a machine.
"""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import structlog
import uvloop

from ordinaut.cli.schema import wait_for_schema
from ordinaut.domain.errors import OrdinautError
from ordinaut.runtime.keys import ensure_admin_key
from ordinaut.runtime.logging import configure_logging
from ordinaut.runtime.metrics_server import metrics_served
from ordinaut.runtime.settings import Settings, load_settings
from ordinaut.runtime.system import System, open_system
from projections.registry import all_projections

if TYPE_CHECKING:
    from ordinaut.work.tools.registry import Registry

GRACE_SECONDS = 10.0
"""What roles get beyond `drain_seconds` before they are cut off."""

GC_THRESHOLD = 20_000
"""New containers before Python looks for cycles among them: more than a batch of events makes. At the
default of Python 3.11 (700) a fifth of a busy worker's time goes there."""

REPEAT_SECONDS = 1.0
"""A signal so soon after the first is the same wish: wrappers pass on what the whole group has heard."""

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")


class Role(Protocol):
    """A part of the system that runs until `stop` is set, and then ends in order by itself."""

    async def run(self, stop: asyncio.Event) -> None:
        """Do the role's work; outages of the servers are waited out, an exception is a bug."""


class RoleEnded(OrdinautError):
    """A role came to an end that nobody asked for; the process must not go on half alive."""

    slug = "role-ended"
    title = "A role ended by itself"


ROLES = ("api", "relay", "projector", "clock", "intake", "worker")


def build(system: System, names: Sequence[str]) -> dict[str, Role]:
    """The roles of these names, wired to the system.

    Each is imported when it is asked for: a relay has no use for a web framework. The API takes its
    port here, so that a port in use is told before anything runs. Raises `OrdinautError` then.
    """
    settings, roles = system.settings, dict[str, Role]()
    troubles: dict[str, Callable[[], str | None]] = {}
    if "relay" in names:
        from ordinaut.log.relay import Relay

        roles["relay"] = relay = Relay(
            system.pool,
            system.redis,
            system.notifications,
            maxlen=settings.log_stream_maxlen,
            poll_seconds=settings.poll_seconds,
        )
        troubles["relay"] = lambda: relay.trouble
    if "projector" in names:
        from projections.projector import Projector

        projections = list(all_projections().values())
        roles["projector"] = Projector(
            settings.database_url, system.notifications, projections, poll_seconds=settings.poll_seconds
        )
    if "clock" in names:
        from ordinaut.clock.clock import Clock

        roles["clock"] = Clock(system)
    if "intake" in names:
        from ordinaut.intake.intake import Intake

        roles["intake"] = intake = Intake(system)
        troubles["intake"] = lambda: intake.trouble or intake.unreadable or intake.pressure.trouble
    if "worker" in names:
        from ordinaut.work.worker import Worker

        roles["worker"] = Worker(system, _tools())
    if "api" in names:
        from ordinaut.api.server import Api

        roles["api"] = api = Api(system, tools=_tools().described(), roles=names, troubles=troubles)
        api.bind()
    return roles


@cache
def _tools() -> "Registry":
    from ordinaut.work.tools.registry import Registry

    return Registry.load()


def with_connections(settings: Settings, names: Sequence[str]) -> Settings:
    """The settings with a pool that is large enough for these roles not to wait for one another."""
    wanted = {"api": 8, "relay": 1, "clock": 3, "intake": 3, "worker": 6}  # a projector has its own
    needed = 2 + sum(wanted.get(name, 0) for name in names)  # two for the appender and the time
    return settings.model_copy(update={"pool_max": max(settings.pool_max, needed)})


async def run_roles(system: System, names: Sequence[str], stop: asyncio.Event) -> None:
    """Run these roles until `stop` is set and all have ended.

    A role that dies takes the others with it: its exception comes out in an ExceptionGroup. Roles that
    take longer to end than `drain_seconds` and a grace are cut off, by a TimeoutError; nothing is lost
    by that, because their leases run out. Raises `OrdinautError` when the API or the metrics cannot have
    their port.
    """
    seconds = system.settings.drain_seconds + GRACE_SECONDS
    roles = build(system, names)
    # What is loaded by now stays; what comes lives for a batch, and is mostly gone before it is looked at.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    async with metrics_served(system), asyncio.timeout(None) as deadline, asyncio.TaskGroup() as group:
        running = [group.create_task(_run(name, role, stop), name=name) for name, role in roles.items()]

        async def limit() -> None:
            await stop.wait()
            deadline.reschedule(asyncio.get_running_loop().time() + seconds)
            await asyncio.wait(running)

        group.create_task(limit(), name="drain-limit")
        logger.info("ready", roles=list(names), pid=os.getpid())


async def _run(name: str, role: Role, stop: asyncio.Event) -> None:
    try:
        await role.run(stop)
    except Exception:
        logger.exception("role.died", role=name)
        raise
    if not stop.is_set():
        raise RoleEnded(f"the role {name} ended by itself")
    logger.info("role.ended", role=name)


def stop_on_signals(stop: asyncio.Event, second: Callable[[int], object]) -> None:
    """SIGTERM or Ctrl-C sets `stop`; once more, `REPEAT_SECONDS` later, calls `second` with its number."""
    loop = asyncio.get_running_loop()
    patient_until = 0.0

    def heard(number: int) -> None:
        nonlocal patient_until
        if not stop.is_set():
            patient_until = loop.time() + REPEAT_SECONDS
            logger.info("stopping", signal=signal.Signals(number).name)
            stop.set()
        elif loop.time() > patient_until:
            second(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard, int(number))


def run_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _leave_now(number: int) -> None:
    os._exit(128 + number)


@asynccontextmanager
async def opened(settings: Settings, names: Sequence[str], stop: asyncio.Event) -> AsyncIterator[System]:
    """The system, with a pool for these roles. While it waits for PostgreSQL, `stop` cancels the caller."""
    caller = asyncio.current_task()
    assert caller is not None

    async def give_up() -> None:
        await stop.wait()
        caller.cancel("told to stop while PostgreSQL was away")

    waiting = asyncio.create_task(give_up(), name="give-up")
    try:
        async with open_system(with_connections(settings, names)) as system:
            waiting.cancel()
            yield system
    finally:
        waiting.cancel()


async def _serve(settings: Settings, names: Sequence[str]) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop, _leave_now)
    async with opened(settings, names, stop) as system:
        await wait_for_schema(system.pool, stop)
        if stop.is_set():
            return 0
        if "api" in names and settings.api_key is not None:
            await ensure_admin_key(system, settings.api_key.get_secret_value())
        try:
            await run_roles(system, names, stop)
        except (TimeoutError, ExceptionGroup) as error:
            logger.error("ended", reason=f"{type(error).__name__}: {error}")
            return 1
    return 0


def serve(names: Sequence[str]) -> int:
    """`ordinaut serve ROLE…`: the exit code, 0 after a drain in order, 1 when a role died.

    Raises OrdinautError when the settings or the database's schema do not allow a start.
    """
    settings = load_settings()
    configure_logging(settings)
    try:
        return run_loop(_serve(settings, tuple(dict.fromkeys(names)) or ROLES))
    except asyncio.CancelledError:
        return 0  # told to stop before it had begun
