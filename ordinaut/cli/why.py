"""`ordinaut run why`: the chain of events that led to a run, from the run back to what began it."""

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import instant, note, out, print_json
from ordinaut.cli.program import program

RUN = "run-"
IN_LOG = (RUN, "task-", "event-", "agent-", "backfill-", "window-")
"""What the names of the log's streams begin with."""

LONGEST = 100
"""Links that are followed at the most; chains of runs end long before (see MAX_DEPTH)."""


MOST_MEMBERS = 10
"""Of how many events the run of several tells."""


def why(run_id: str, *, as_json: bool) -> int:
    """Print the chain, latest first. Raises Refused (404) for a run that is not there."""
    with Client() as client:
        run = client.get(f"/v1/runs/{segment(run_id)}")
        chain = list(_causes(client, f"{RUN}{run['id']}/1"))
    if as_json:
        print_json(chain)
        return 0
    console = out()
    for number, event in enumerate(chain):
        console.print(
            f"{'because' if number else 'run    '}  [dim]{instant(event['at'])}[/]  [bold]{_what(event)}[/]"
            f"  [dim]by {escape(event['actor'])}; {escape(event['stream'])}/{event['version']}[/]",
            soft_wrap=True,
        )
        for line in _members(event):
            console.print(f"         [dim]{line}[/]", soft_wrap=True)
    if chain:
        console.print(f"because  {escape(_outside(chain[-1]))}", soft_wrap=True)
    note(f"All that belongs to it: {program()} log list --correlation {quote(run['correlation'])}")
    return 0


def _causes(client: Client, reference: str | None) -> Iterator[dict[str, Any]]:
    """The event with this reference, the one that caused it, and so on. Within a run only its last event
    and its first are given: what is between them is the run itself."""
    for _ in range(LONGEST):
        event = _event(client, reference)
        if event is None:
            return
        yield event
        inside = event["stream"].startswith(RUN) and event["version"] > 1
        reference = f"{event['stream']}/1" if inside else event["causation"]


def _event(client: Client, reference: str | None) -> dict[str, Any] | None:
    stream, slash, version = (reference or "").rpartition("/")
    if not slash or not version.isdigit() or not stream.startswith(IN_LOG):
        return None  # a cause outside the log
    events = client.items("/v1/log", None, stream=stream)
    return next((event for event in events if event["version"] == int(version)), None)


def _what(event: Mapping[str, Any]) -> str:
    data = event["data"]
    match event["type"]:
        case "RunRequested":
            return f"{escape(data['name'])} was asked to run"
        case "BackfillRequested":
            why = f" ({escape(data['reason'])})" if data["reason"] else ""
            source = data.get("source", {})
            replayed = source.get("stream") or source.get("event")
            what = f"replay of {escape(replayed)} for" if replayed else "backfill of"
            return f"a {what} {escape(data['name'])} was asked for{why}"
        case "WindowClosed":
            return f"{_counted(data['count'])} collected by {data['pattern']} ended as {data['reason']}"
        case "EventCollected":
            parts = f" as {escape(' and '.join(data['parts']))}" if "parts" in data else ""
            return f"{escape(data['name'])} collected it{parts}"
        case "EventReceived":
            return f"an event came on {escape(data['stream'])}"
        case "EventRequeued":
            return f"a dead letter was requeued ({escape(data['reason'])})"
        case "RunStarted":
            return "a run that had started published it"
        case kind if "step" in data:
            return f"a run published it, behind {escape(kind)} of {escape(data['step'])}"
        case kind:
            return escape(str(kind))


def _members(event: Mapping[str, Any]) -> Iterator[str]:
    """The events that a run of several is for."""
    cause = event["data"].get("cause") or {}
    if event["type"] != "RunRequested" or cause.get("kind") != "window":
        return
    for each in cause["events"][:MOST_MEMBERS]:
        part = f"{each['part']}: " if "part" in each else ""
        yield escape(f"{part}{each.get('event') or each['stream']} {each.get('position') or each['id']}")
    if (more := cause["count"] - MOST_MEMBERS) > 0:
        yield f"and {_counted(more)} more"


def _counted(number: int) -> str:
    return f"{number} event{'' if number == 1 else 's'}"


def _outside(event: Mapping[str, Any]) -> str:
    """What began the chain, which is no event of the log."""
    cause = event["data"].get("cause") or {}
    kind, _, rest = (event["causation"] or "nothing that is known").partition(":")
    match kind:
        case "schedule":
            return f"its schedule named {instant(cause.get('at'))}"
        case "redis":
            stream, _, entry = rest.rpartition("/")
            return f"the entry {entry} was added to the Redis stream {stream}"
        case "hook":
            name, _, delivery = rest.partition("/")
            return f"the webhook {name} delivered {delivery}"
        case "request":
            return f"of the request {rest}"
        case other:
            return f"of {other}{':' if rest else ''}{rest}"
