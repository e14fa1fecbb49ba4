"""What the handlers of one API process share, and the two kinds of handler there are.

A *command* changes something: it is given a `Command` and answers with an `Answer` that says at which
position of the log it is recorded. A *query* reads, once the projections it reads have come as far as
the caller has seen.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from ordinaut.api import cloudevents
from ordinaut.api.bodies import check_fields, parse_object, read_body
from ordinaut.api.idempotency import Idempotency, fingerprint
from ordinaut.api.positions import POSITION, Positions
from ordinaut.api.problems import BadRequest, problem, unexpected
from ordinaut.domain import ids
from ordinaut.domain.errors import NotPossible, OrdinautError, VersionConflict
from ordinaut.domain.events import SCHEMA_VERSION, Event, NewEvent
from ordinaut.domain.tool_input import ToolInput, tool_inputs
from ordinaut.log.append import Append, Appended
from ordinaut.log.read import head
from ordinaut.runtime.hooks import Refusals
from ordinaut.runtime.keys import Caller, Keys
from ordinaut.runtime.metrics import SystemGauges
from ordinaut.runtime.spaces import Spaces
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex

REQUEST_ID = "X-Request-Id"
IDEMPOTENCY_KEY = "Idempotency-Key"

_PRINTABLE = re.compile(r"[\x21-\x7e]{1,200}")

TRIES = 20
"""How often a command is decided anew because others were first."""

Trouble = Callable[[], str | None]
"""Asked for what is wrong with a part of the process: a sentence, or None when all is well."""


@dataclass(slots=True)
class Door:
    """One API process. `tools` are those steps may use, by name, with what is public about them (None
    leaves names unchecked), `roles` those that run in this process, `troubles` what they say of
    themselves."""

    system: System
    tools: Mapping[str, Mapping[str, Any]] | None
    roles: Collection[str]
    troubles: Mapping[str, Trouble]
    keys: Keys = field(init=False)
    positions: Positions = field(init=False)
    idempotency: Idempotency = field(init=False)
    triggers: TriggerIndex = field(init=False)
    gauges: SystemGauges = field(init=False)
    spaces: Spaces = field(init=False)
    refusals: Refusals = field(init=False)
    inputs: Mapping[str, ToolInput] | None = field(init=False)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        pool = self.system.pool
        self.inputs = None if self.tools is None else tool_inputs(self.tools)
        self.keys = Keys(pool)
        self.positions = Positions(pool)
        self.idempotency = Idempotency(pool)
        self.triggers = TriggerIndex(pool)
        self.spaces = Spaces(pool)
        self.refusals = Refusals(self.system)
        self.gauges = SystemGauges(pool, self.system.redis)


def door_of(request: Request) -> Door:
    """The process's shared parts."""
    door: Door = request.app.state.door
    return door


def caller_of(request: Request) -> Caller:
    """Whose key the request carries."""
    caller: Caller = request.scope["caller"]
    return caller


@dataclass(slots=True)  # not frozen: see ordinaut/domain/events.py
class Answer:
    """What a command answers. `position` is where the log holds what it did; None: nothing had to be
    done, and what it found is at or before the end of the log."""

    status: int
    body: Any
    position: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)  # not frozen: see ordinaut/domain/events.py
class Command:
    """One request to change something, and in whose name. `key` is its Idempotency-Key; `now` the
    database's time, never ahead of it, the same for every attempt under the same key. `attempt` counts how
    often others were first with what it appended."""

    door: Door
    request: Request
    caller: Caller
    raw: bytes
    request_id: str
    correlation: str
    key: str | None
    seed_ms: int
    attempt: int = 0

    @property
    def system(self) -> System:
        """The parts all roles share."""
        return self.door.system

    @property
    def space(self) -> str:
        """The caller's space; nothing outside it exists for him."""
        return self.caller.space

    @property
    def now(self) -> datetime:
        """When this was asked for (UTC)."""
        return datetime.fromtimestamp(self.seed_ms / 1000, UTC)

    @property
    def causation(self) -> str:
        """How its events name this request."""
        return f"request:{self.request_id}"

    def body(self, known: Collection[str], required: Collection[str] = ()) -> dict[str, Any]:
        """The body's object; its fields are all among `known`. Raises `BadRequest` and `Invalid`."""
        body = parse_object(self.raw)
        check_fields(body, known, required)
        return body

    def fresh_id(self, *which: str) -> str:
        """An id for what this command makes: the same whenever it is repeated under its key (I7). `which`
        tells things apart where it makes several."""
        if self.key is None:
            return ids.new_id()
        return ids.keyed_id(self.seed_ms, self.space, self.key, *which)

    def append(
        self,
        stream: str,
        expected: int,
        events: Sequence[NewEvent],
        *,
        requires: Mapping[str, int] | None = None,
        effects: Mapping[str, tuple[Any, ...]] | None = None,
        correlation: str | None = None,
    ) -> Append:
        """An append in the caller's name, within this request's correlation or an older one."""
        return Append(
            stream, expected, events, self.space, self.caller.actor, correlation or self.correlation,
            self.causation, requires or {}, effects or {},
        )  # fmt: skip


def recorded(item: Append, appended: Appended) -> list[Event]:
    """The events of an append as the log has them now."""
    first = appended.position - len(item.events) + 1
    return [
        Event(
            position=first + number,
            space=item.space,
            stream=item.stream,
            version=item.expected + 1 + number,
            type=event.type,
            schema=SCHEMA_VERSION,
            at=appended.at,
            actor=item.actor,
            correlation=item.correlation,
            causation=item.causation,
            data=dict(event.data),
        )
        for number, event in enumerate(item.events)
    ]


class Direct(APIRoute):
    """A route whose endpoint takes the request as it is. What the framework does for endpoints with
    declared parameters costs more than some commands do; here nothing is declared."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the endpoint, unless the method is another; its errors are answered further out."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


Handler = Callable[[Command], Awaitable[Answer]]
Reader = Callable[[Request], Awaitable[Any]]
Endpoint = Callable[[Request], Awaitable[Response]]


def as_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(body), status, dict(headers or {}), media_type="application/json")


def _named_after(endpoint: Endpoint, handler: Callable[..., Any]) -> Endpoint:
    # Not functools.wraps: the framework would then read the handler's parameters.
    endpoint.__name__ = handler.__name__
    endpoint.__doc__ = handler.__doc__
    return endpoint


def command(handler: Handler) -> Endpoint:
    """An endpoint that carries out a command: body, ids, Idempotency-Key, position.

    A handler loads, decides and appends. When somebody else was first (its append raises `VersionConflict`,
    and nothing was changed) it does all of that again.
    """

    async def endpoint(request: Request) -> Response:
        door, caller = door_of(request), caller_of(request)
        raw = await read_body(request, door.system.settings.max_body_bytes)
        key = _header_id(request, IDEMPOTENCY_KEY) if request.method == "POST" else None
        # Not ahead of the database: what begins to listen "now" must hear what comes after the answer.
        seed_ms = int(door.system.time.reached().timestamp() * 1000)
        if key is None:
            return await _answer(handler, _command(door, request, caller, raw, None, seed_ms))
        content = cloudevents.headers_of(request.headers) + raw
        print_ = fingerprint(request.method, request.url.path, request.url.query, content)
        kept = await door.idempotency.begin(caller.space, key, print_, seed_ms)
        if kept.status is not None:
            return kept.response()
        answer = await _run_to_answer(handler, _command(door, request, caller, raw, key, kept.seed_ms))
        await door.idempotency.keep(caller.space, key, answer)
        return answer

    return _named_after(endpoint, handler)


def query(*projections: str) -> Callable[[Reader], Endpoint]:
    """An endpoint that reads `projections`, no older than the request's `Ordinaut-Wait` asks for."""

    def wrap(reader: Reader) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            await door_of(request).positions.wait(request, projections)
            return as_json(await reader(request))

        return _named_after(endpoint, reader)

    return wrap


def _command(
    door: Door, request: Request, caller: Caller, raw: bytes, key: str | None, seed_ms: int
) -> Command:
    given = _header_id(request, REQUEST_ID)
    request_id = given or ids.new_id()
    return Command(door, request, caller, raw, request_id, given or key or request_id, key, seed_ms)


def _header_id(request: Request, name: str) -> str | None:
    value = request.headers.get(name)
    if value is not None and not _PRINTABLE.fullmatch(value):
        raise BadRequest.header(name, "1 to 200 printable ASCII characters without spaces")
    return value


async def _answer(handler: Handler, asked: Command) -> Response:
    answer = await _decided(handler, asked)
    position = answer.position
    if position is None:
        async with asked.system.pool.acquire() as connection:
            position = await head(connection)
    headers = {POSITION: str(position), REQUEST_ID: asked.request_id, **answer.headers}
    return as_json(answer.body, answer.status, headers)


async def _decided(handler: Handler, asked: Command) -> Answer:
    for attempt in range(TRIES):
        try:
            return await handler(replace(asked, attempt=attempt) if attempt else asked)
        except VersionConflict as conflict:
            stream = conflict.stream
    raise NotPossible(f"others keep changing {stream[:150]}; try again")


async def _run_to_answer(handler: Handler, asked: Command) -> Response:
    """The answer whatever happens, so that it can be kept."""
    try:
        return await _answer(handler, asked)
    except OrdinautError as error:
        return problem(error)
    except Exception as error:
        return unexpected(error, asked.request.url.path)
