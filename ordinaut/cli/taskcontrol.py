"""`ordinaut task pause`, `resume` and `snooze` over HTTP."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import typer

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import note, print_json, say
from ordinaut.domain.durations import parse_duration

_PAST = {"pause": "paused", "resume": "resumed", "snooze": "snoozed"}
_ALREADY = {"pause": "paused already", "resume": "active already"}


def pause(
    name: str | None, labels: Sequence[str], reason: str | None, until: str | None, *, as_json: bool
) -> int:
    """`ordinaut task pause`: `until` is an instant, a duration from now, or None until it is resumed."""
    body = {**_end(until, "--until"), "reason": reason}
    return _one_or_many("pause", name, labels, body, as_json=as_json)


def resume(name: str | None, labels: Sequence[str], reason: str | None, *, as_json: bool) -> int:
    """`ordinaut task resume`."""
    return _one_or_many("resume", name, labels, {"reason": reason}, as_json=as_json)


def snooze(name: str, until: str | None, reason: str | None) -> int:
    """`ordinaut task snooze`: `until` is an instant, a duration from now, or None for one occurrence."""
    _one("snooze", name, {**_end(until, "UNTIL"), "reason": reason})
    say(f"snoozed {name}")
    return 0


def _one_or_many(
    verb: str, name: str | None, labels: Sequence[str], body: Mapping[str, Any], *, as_json: bool
) -> int:
    if (name is None) == (not labels):
        raise typer.BadParameter("say which task, or --label for all that have it; not both")
    if name is not None:
        answer = _one(verb, name, body)
        if as_json:
            print_json(answer)
        else:
            say(f"{_PAST[verb]} {name}")
        return 0
    wanted = {"labels": _labels(labels), **_said(body)}
    with Client() as client:
        answer = client.post(f"/v1/tasks:{verb}", wanted)
    if as_json:
        print_json(answer)
        return 0
    for each in answer["changed"]:
        say(f"{_PAST[verb]} {each}")
    for each in answer["already"]:
        note(f"{each} is {_ALREADY[verb]}")
    if not answer["changed"] and not answer["already"]:
        note("No task has these labels.")
    return 0


def _one(verb: str, name: str, body: Mapping[str, Any]) -> Any:
    with Client() as client:
        return client.post(f"/v1/tasks/{segment(name)}/{verb}", _said(body))


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in body.items() if value is not None}


def _labels(texts: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} has no '=', as in team=billing", param_hint="--label")
        if labels.setdefault(key, value) != value:
            raise typer.BadParameter(f"{key!r} stands twice, with two values", param_hint="--label")
    return labels


def _end(text: str | None, where: str) -> dict[str, str]:
    if text is None:
        return {}
    with suppress(ValueError, OverflowError):
        parse_duration(text)
        return {"for": text}
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither an ISO instant nor a duration such as 2h", param_hint=where
        ) from None
    return {"until": at.astimezone().isoformat()}
