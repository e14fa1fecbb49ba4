"""/v1/dead-letters: what was rejected, and putting it to work again or out of the way."""

from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api import openapi
from ordinaut.api.bodies import text_field
from ordinaut.api.door import Answer, Command, Direct, caller_of, command, door_of, query
from ordinaut.api.problems import BadRequest
from ordinaut.api.queries import Query, to_cursor
from ordinaut.api.taskcommands import id_of, looks_like_id
from ordinaut.domain import deadletter
from ordinaut.domain.deadletter import STATES, DeadLetter, letter_stream
from ordinaut.domain.errors import Invalid, NotFound
from ordinaut.runtime.dead import load_letter, requeue
from ordinaut.runtime.dead_content import forget_copies, logged_fields
from projections import dead_letters

router = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"], route_class=Direct)

REASON_HINT = "why; people will read it"


@router.get(
    "",
    openapi_extra=openapi.parameters(
        limit="",
        after="",
        state="dead (as without it), requeued, dropped, or all.",
        stream="Only entries of this Redis stream, or events on it.",
        task="",
        wait="",
    ),
)
@query("dead_letters")
async def list_dead_letters(request: Request) -> dict[str, Any]:
    """What was rejected, newest first. `state` is dead, requeued, dropped or all; dead without it."""
    asked = Query(request, ("limit", "after", "state", "stream", "task"))
    limit, space, task = asked.limit(), caller_of(request).space, asked.text("task")
    state = asked.choice("state", (*STATES, "all")) or "dead"
    async with door_of(request).system.pool.acquire() as connection:
        found = await dead_letters.list_dead_letters(
            connection,
            space,
            before=asked.cursor_position(2**63 - 1),
            limit=limit + 1,
            state=None if state == "all" else state,
            stream=asked.text("stream"),
            task_id=id_of(space, task) if task else None,
        )
    return {
        "items": [one for _, one in found[:limit]],
        "next": to_cursor(found[limit - 1][0]) if len(found) > limit else None,
    }


@router.get("/{letter_id}")
@query()
async def get_dead_letter(request: Request) -> dict[str, Any]:
    """One, with the fields of its entry as the log holds them, always fresh."""
    Query(request, ())
    letter_id = _id(request)
    return _public(await load_letter(door_of(request).system, caller_of(request).space, letter_id))


@router.post(
    "/{letter_id}/requeue", openapi_extra=openapi.body({"reason": openapi.TEXT}, required=("reason",))
)
@command
async def requeue_dead_letter(command: Command) -> Answer:
    """Decide it anew, by the triggers as they are now, under its old id: it gets no second run.

    The answer is the letter: `requeued` with its `runs`, or `dead` again with the new reason.
    """
    reason = _reason(text_field(command.body(("reason",), ("reason",)), "reason"), "/reason")
    letter_id = _id(command.request)
    by = command.append(letter_stream(letter_id), 0, ())
    done = await requeue(command.system, command.door.triggers, command.space, letter_id, reason, by)
    if done.letter.state != "dead":
        await forget_copies(command.system.redis, done.letter)
    return Answer(200, _public(done.letter), done.position)


@router.delete("/{letter_id}", openapi_extra=openapi.parameters(reason=""))
@command
async def drop_dead_letter(command: Command) -> Answer:
    """Out of the way with it, for the reason in `?reason=`. It stays in the log. Twice changes nothing."""
    text = Query(command.request, ("reason",)).text("reason")
    if text is None or not text.strip():
        raise BadRequest.query("reason", "must be given", REASON_HINT)
    letter_id = _id(command.request)
    letter = await load_letter(command.system, command.space, letter_id)
    events = deadletter.drop(letter, text)
    if not events:
        return Answer(200, _public(letter))
    item = command.append(letter_stream(letter_id), letter.stream_version, events)
    appended = await command.system.appender.append(item)
    letter = await load_letter(command.system, command.space, letter_id)
    await forget_copies(command.system.redis, letter)
    return Answer(200, _public(letter), appended.position)


def _id(request: Request) -> str:
    letter_id: str = request.path_params["letter_id"]
    if not looks_like_id(letter_id):
        raise NotFound(f"there is no dead letter with the id {letter_id[:100]!r}")
    return letter_id.lower()


def _reason(text: str | None, pointer: str) -> str:
    if text is None or not text.strip():
        raise Invalid.at(pointer, "must not be empty", REASON_HINT)
    return text


def _public(letter: DeadLetter) -> dict[str, Any]:
    """The letter as in the list, with the entry's fields (`entry`, and whether they are `shortened`) and, of
    one that was requeued, the `runs` it has."""
    shortened = letter.kind == "stream" and logged_fields(letter) is None
    return dead_letters.public_letter(letter) | {
        "entry": letter.fields,
        "shortened": shortened,
        "runs": letter.runs,
    }
