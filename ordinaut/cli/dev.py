"""`ordinaut dev`: the whole system in one process on servers of its own, and a feed of what happens."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import structlog
from redis.exceptions import RedisError

from ordinaut.cli.apply import Item, carry_out, check_on_server, find_files, plan, read_items
from ordinaut.cli.client import KEY_FILE, Client
from ordinaut.cli.database import database
from ordinaut.cli.dev_banner import Session, banner
from ordinaut.cli.feed import Feed
from ordinaut.cli.output import PlainConsole, note, print_error
from ordinaut.cli.schema import prepare
from ordinaut.cli.serve import ROLES, opened, run_loop, run_roles, stop_on_signals
from ordinaut.cli.yaml_source import Document
from ordinaut.domain.errors import NotPossible, OrdinautError
from ordinaut.runtime.embedded import EmbeddedServers, write_dev_json
from ordinaut.runtime.keys import PREFIX, ensure_admin_key
from ordinaut.runtime.logging import configure_logging
from ordinaut.runtime.ports import PortTaken
from ordinaut.runtime.settings import Settings, load_settings
from ordinaut.runtime.system import System

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES_API = "http://127.0.0.1:8080"
"""Where the examples expect the API; another address is put in its place."""

DEMO_STREAM = "orders"
DEMO_ORDER = '{"id": 7, "amount": 120, "customer": "Ana"}'

logger = structlog.get_logger(__name__)


def dev(port: int | None, data_dir: Path | None, *, ephemeral: bool, examples: bool) -> int:
    """Run until Ctrl-C; the exit code. Raises OrdinautError when it cannot start."""
    settings = load_settings(port=port, data_dir=data_dir)
    _quieten(settings)
    settings = settings.model_copy(
        update={"port": _free_port(settings, None if ephemeral else settings.data_dir)}
    )
    note("Starting PostgreSQL and Valkey …")
    with EmbeddedServers(
        settings.data_dir,
        database_url=settings.database_url if settings.given("database_url") else None,
        redis_url=settings.redis_url if settings.given("redis_url") else None,
        ephemeral=ephemeral,
    ) as servers:
        settings = settings.model_copy(
            update={"database_url": servers.database_url, "redis_url": servers.redis_url}
        )
        api = f"http://{settings.host}:{settings.port}"
        write_dev_json(
            servers.data_dir, api=api, database_url=settings.database_url, redis_url=settings.redis_url
        )
        try:
            return run_loop(_run(settings, servers.data_dir, api, examples))
        except asyncio.CancelledError:  # a second Ctrl-C: the servers are stopped all the same
            return 130


def _quieten(settings: Settings) -> None:
    """Configure logging; unless a level is wanted, only what the feed does not tell is written."""
    if settings.given("log_level"):
        configure_logging(settings)
        return
    configure_logging(settings.model_copy(update={"log_level": "warning"}))
    logging.getLogger("ordinaut.work").setLevel(logging.ERROR)  # steps that fail are in the feed


def _free_port(settings: Settings, directory: Path | None) -> int:
    """The port to use, which nobody listens on (0 is made a real one).

    Raises `DirectoryInUse` if it is the `ordinaut dev` of the same directory that does, else `PortTaken`.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
            return int(probe.getsockname()[1])
        except OSError as error:
            reason = error.strerror or str(error)
    if directory is not None:
        with EmbeddedServers(directory, database_url="none", redis_url="none"):
            pass  # owned for a moment, nothing started: nobody else has it
    raise PortTaken(
        f"port {settings.port} on {settings.host} cannot be used ({reason}): "
        "stop whoever listens there, or choose another one with --port."
    )


async def _admin_key(system: System, directory: Path) -> tuple[str, bool]:
    """The admin key, and whether it was made just now; one that is made is kept in the directory."""
    if system.settings.api_key is not None:
        given = system.settings.api_key.get_secret_value()
        await ensure_admin_key(system, given)
        return given, False
    path = directory / KEY_FILE
    kept = path.read_text().strip() if path.exists() else ""
    if kept:
        with contextlib.suppress(NotPossible):  # it was revoked: a new one, then
            await ensure_admin_key(system, kept)
            return kept, False
    key = PREFIX + secrets.token_urlsafe(24)
    await ensure_admin_key(system, key)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{key}\n")
    return key, True


async def _run(settings: Settings, directory: Path, api: str, examples: bool) -> int:
    """Everything between the servers' start and their stop."""
    stop = asyncio.Event()
    main = asyncio.current_task()
    assert main is not None
    stop_on_signals(stop, lambda _: main.cancel("a second signal"))
    async with opened(settings, ROLES, stop) as system:
        async with database(settings, prepared=False) as connection:
            done = await prepare(connection, lambda _name, _done, _total: None)
        for name in done.rebuilt:
            note(f"Rebuilt the projection {name}.")
        key, new_key = await _admin_key(system, directory)
        session = Session(settings, directory, api, key, new_key, examples)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run_roles(system, ROLES, stop), name="roles")
                group.create_task(_show(session, system, stop), name="show")
        except ExceptionGroup as errors:
            return _failed(errors)
    note("Stopping the servers …")
    return 0


def _failed(error: BaseException) -> int:
    """Say what is wrong, however deep it is in groups of errors."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _failed(inner)
    elif isinstance(error, OrdinautError):
        print_error(error)
    else:
        logger.error("dev.died", exc_info=error)
    return 1


async def _show(session: Session, system: System, stop: asyncio.Event) -> None:
    """Once the API answers: examples, banner, feed, and the demo order."""
    if not await _ready(session.api, stop):
        return
    applied = await asyncio.to_thread(_apply_examples, session, stop) if session.examples else []
    if stop.is_set():
        return
    console = PlainConsole(highlight=False)
    demo = "big-orders" in applied
    banner(console, session, applied, demo=demo)
    async with asyncio.TaskGroup() as group:
        group.create_task(Feed(system, console).run(stop), name="feed")
        if demo:
            group.create_task(_demo_order(system, stop), name="demo")


async def _ready(api: str, stop: asyncio.Event) -> bool:
    """Wait until /health/ready says 200; False when told to stop before."""
    async with httpx.AsyncClient(timeout=5) as client:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{api}/health/ready")).status_code == 200:
                    return True
            await _pause(stop, 0.1)
    return False


def _apply_examples(session: Session, stop: asyncio.Event) -> list[str]:
    """Apply the examples as `ordinaut apply` would, but for those that somebody has retired.

    Answers with their names. What is wrong with them is said, and stops nothing.
    """
    # Only beside the source: an installed package has no examples, and its neighbours' are not ours.
    if not (EXAMPLES.parent / "pyproject.toml").exists() or not EXAMPLES.is_dir():
        return []
    try:
        items = [_here(item, session.api) for item in read_items(find_files([EXAMPLES]))]
        with Client(session.api, session.key) as client:
            retired = {task["name"] for task in client.items("/v1/tasks", None, status="retired")}
            items = [item for item in items if item.name not in retired]
            check_on_server(client, items)
            carry_out(client, plan(client, items))
    except OrdinautError as error:
        if not stop.is_set():
            print_error(error)
        return []
    return [item.name for item in items]


def _here(item: Item, api: str) -> Item:
    """The item with the address that examples expect the API at replaced by the real one."""

    def moved(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(EXAMPLES_API, api)
        if isinstance(value, dict):
            return {name: moved(inner) for name, inner in value.items()}
        return [moved(inner) for inner in value] if isinstance(value, list) else value

    document = item.document
    return Item(item.name, Document(document.name, moved(document.value), document.lines))


async def _demo_order(system: System, stop: asyncio.Event) -> None:
    """XADD one order, once somebody listens to the stream."""
    while not stop.is_set():
        with contextlib.suppress(RedisError, OSError):
            if await _groups(system):
                await system.redis.xadd(DEMO_STREAM, {"data": DEMO_ORDER})
                return
        await _pause(stop, 0.5)


async def _groups(system: System) -> Sequence[Any]:
    if not await system.redis.exists(DEMO_STREAM):
        return []
    groups: Sequence[Any] = await system.redis.xinfo_groups(DEMO_STREAM)
    return groups


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
