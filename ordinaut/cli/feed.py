"""The live feed of `ordinaut dev`: one short line for each thing that happens to a run."""

import asyncio
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from ordinaut.cli.output import brief, duration
from ordinaut.domain.events import Event
from ordinaut.log.database import OUTAGE
from ordinaut.log.read import head, read_after
from ordinaut.log.wake import LOG, Wake
from ordinaut.runtime.system import System

BATCH = 500
MOST_LINES = 60
"""Of a batch with more events than that only a count is shown: nobody reads that fast."""

MARKS = {
    "TaskCreated": "[green]new task[/]",
    "TaskChanged": "changed",
    "TaskPaused": "[yellow]paused[/]",
    "TaskResumed": "resumed",
    "TaskSnoozed": "[yellow]snoozed[/]",
    "TaskRetired": "[dim]retired[/]",
    "RunParked": "[red]parked[/]",
    "RunCanceled": "[dim]canceled[/]",
    "StepSkipped": "[dim]– {step}, skipped[/]",
}


class Feed:
    """Shows what is appended to the log from the moment it is made on."""

    def __init__(self, system: System, console: Console) -> None:
        self._system = system
        self._console = console
        self._names: dict[str, str] = {}
        self._began: dict[str, datetime] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Follow the log until told to stop; while the database is away nothing is shown."""
        wake = Wake()
        unhear = self._system.notifications.hear(LOG, lambda _: wake.set())
        position: int | None = None
        try:
            while not stop.is_set():
                try:
                    async with self._system.pool.acquire() as connection:
                        if position is None:
                            position = await head(connection)
                        events = await read_after(connection, position, BATCH)
                except OUTAGE:
                    events = []
                if events:
                    position = events[-1].position
                    self._show(events)
                if len(events) < BATCH:
                    await wake.wait(self._system.settings.poll_seconds)
        finally:
            unhear()

    def _show(self, events: list[Event]) -> None:
        lines = [line for event in events if (line := self._line(event))]
        if len(lines) > MOST_LINES:
            ended = sum(event.type == "RunSucceeded" for event in events)
            lines = [f"[dim]{'':10}… {len(events)} events, {ended} runs succeeded[/]"]
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def _line(self, event: Event) -> str | None:
        """The event as a line of markup; None for one that is not shown."""
        what = self._what(event)
        if what is None:
            return None
        name = self._name(event)
        short = event.stream.removeprefix("run-")[-6:] if event.stream.startswith("run-") else ""
        at = event.at.astimezone().strftime("%H:%M:%S")
        return f"[dim]{at}[/]  {escape(name):<20} [dim]{short:<6}[/]  {what}"

    def _name(self, event: Event) -> str:
        name = event.data.get("name")
        if isinstance(name, str):
            self._names[event.stream] = name
        found = self._names.get(event.stream, "")
        if event.type in ("RunSucceeded", "RunFailed", "RunCanceled", "RunParked"):
            self._names.pop(event.stream, None)
        return found

    def _what(self, event: Event) -> str | None:
        data = event.data
        match event.type:
            case "RunRequested":
                self._began[event.stream] = event.at
                return f"[bold]{_cause(data['cause'])}[/]"
            case "OccurrenceSkipped":
                return f"[yellow]skipped:[/] {escape(str(data['reason']))}"
            case "StepSucceeded":
                return f"[green]✓[/] {escape(data['step'])}{_took(data)}{_message(data)}"
            case "StepFailed":
                return f"[red]✗[/] {escape(data['step'])}: {brief(data.get('error'))}"
            case "RunRetryScheduled" | "RunWaiting":
                return f"[yellow]waits[/] until {_clock(data.get('run_at'))}"
            case "RunSucceeded":
                began = self._began.pop(event.stream, None)
                took = f" [dim]in {duration((event.at - began).total_seconds())}[/]" if began else ""
                return f"[bold green]succeeded[/]{took}"
            case "RunFailed":
                self._began.pop(event.stream, None)
                return f"[bold red]failed[/]: {brief(data.get('error'))}"
            case "EventReceived":
                return f"event on {escape(str(data.get('stream', '')))}"
            case "EventRequeued":
                return f"requeued: {brief(data['reason'])}"
            case "EventDropped":
                return f"[dim]dropped:[/] {brief(data['reason'])}"
            case "EventRejected":
                return f"[red]event refused[/]: {brief(data.get('reason'))}"
            case "HookRefused":
                reasons = ", ".join(data["reasons"])
                refused = "1 delivery" if data["count"] == 1 else f"{data['count']} deliveries"
                return f"[red]{refused} refused[/]: webhook {escape(data['name'])} ({reasons})"
        mark = MARKS.get(event.type)
        return mark.format(step=escape(str(data.get("step", "")))) if mark else None


def _cause(cause: dict[str, Any]) -> str:
    match cause.get("kind"):
        case "schedule":
            return "due by its schedule"
        case "stream":
            return f"triggered by an entry of {escape(str(cause.get('stream')))}"
        case "event":
            return f"triggered by an event on {escape(str(cause.get('stream')))}"
        case "window":
            number = cause.get("count")
            return f"{number} event{'' if number == 1 else 's'}, by {escape(str(cause.get('pattern')))}"
        case "system":
            return f"triggered by the log's {escape(str(cause.get('event')))}"
        case "manual":
            return "asked for by hand"
        case kind:
            return escape(str(kind))


def _took(data: dict[str, Any]) -> str:
    start, end = data.get("started_at"), data.get("finished_at")
    if not start or not end:
        return ""
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return f" [dim]{duration(seconds)}[/]"


def _message(data: dict[str, Any]) -> str:
    """What a step was given to say, as `log.write` is."""
    given = data.get("input")
    message = given.get("message") if isinstance(given, dict) else None
    return f"  {brief(message, 80)}" if isinstance(message, str) else ""


def _clock(text: Any) -> str:
    if not isinstance(text, str):
        return "later"
    return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S")
