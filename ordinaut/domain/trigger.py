"""`on` of a task: what it listens to, read and checked, and compiled.

A task listens to one source (a stream, a pattern of streams, or a type of event of the log), or to one for
each part of a pattern of several.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ordinaut.domain.definition_checks import check_trigger
from ordinaut.domain.definition_model import Model, read_model
from ordinaut.domain.durations import seconds
from ordinaut.domain.errors import Fault
from ordinaut.domain.expressions import Expression, Template, compile_expression, compile_template
from ordinaut.domain.patterns import AFTER, EXPECTED, Pattern
from ordinaut.domain.trigger_model import OnEventModel, OnModel, OnPartsModel

SEVERAL = ("sequence", "all_of", "absent")
"""The patterns that have parts, each with a source of its own."""

PATTERNS = ("debounce", "batch", "throttle", *SEVERAL)
"""The fields of `on` that collect events; a task has one of them or none."""

LOG = "ordinaut:log/"
"""Before the type of an event that tasks listen to. No stream of anybody's begins so."""


@dataclass(frozen=True, slots=True)
class On:
    """What of a source starts a run, or is collected for one. `where`, `input` and `key` see the event's
    envelope (see matching). A pattern of several parts has all of that in its `parts`, by name."""

    where: Expression | None
    input: Template | None
    key: Template | None = None
    pattern: Pattern | None = None
    parts: Mapping[str, "On"] | None = None


def sources_of(on: Mapping[str, Any]) -> dict[str | None, str]:
    """What a normalised `on` listens to, by the name of the part (None: as a whole): a stream, a pattern of
    streams, or `LOG` and a type of event."""
    return {name: _source(part) for name, part in _parts(on)}


def read_on(on: Mapping[str, Any], pointer: str) -> tuple[dict[str, Any] | None, list[Fault]]:
    """`on` as the log keeps it, every part with its own source; or all its faults, below `pointer`."""
    kinds = [name for name in PATTERNS if on.get(name) is not None]
    faults = [
        Fault(f"{pointer}/{name}", f"does not go with {kinds[0]!r}", "leave one out") for name in kinds[1:]
    ]
    if "event" in on and "stream" in on:
        return None, [Fault(f"{pointer}/event", "`event` does not go with `stream`", "leave one out")]
    if on.get("key") is not None and not kinds:
        hint = f"add {', '.join(PATTERNS[:-1])} or {PATTERNS[-1]}"
        faults.append(Fault(f"{pointer}/key", "is for a pattern, and there is none", hint))
    faults += check_trigger(on, pointer)
    if kinds and kinds[0] in SEVERAL:
        read, more = _read_parts(on, kinds[0], pointer)
    else:
        model: type[Model] = OnEventModel if "event" in on else OnModel
        read, more = read_model(model, on, pointer)
    faults += more
    return (None, faults) if faults else (_said(read), [])


def compile_on(on: Mapping[str, Any]) -> On:
    """A normalised `on`, compiled."""
    kind = next((name for name in PATTERNS if name in on), None)
    pattern = None if kind is None else _compile_pattern(kind, on)
    if pattern is None or not pattern.parts:
        return _compile_source(on, on.get("key"), pattern)
    parts = {str(name): _compile_source(part, part.get("key", on.get("key"))) for name, part in _parts(on)}
    return On(None, None, None, pattern, parts)


# --- parts ----------------------------------------------------------------------------------------


def _parts(on: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    if "absent" in on:
        for name in (AFTER, EXPECTED):
            yield name, on["absent"][name]
    elif several := on.get("sequence") or on.get("all_of"):
        for part in several["events"]:
            yield part["name"], part
    else:
        yield None, on


def _source(part: Mapping[str, Any]) -> str:
    return str(part["stream"]) if "stream" in part else LOG + part["event"]


def _read_parts(on: Mapping[str, Any], kind: str, pointer: str) -> tuple[dict[str, Any], list[Fault]]:
    faults = [
        Fault(f"{pointer}/{name}", f"`{name}` is each event's own here", f"say it in the parts of `{kind}`")
        for name in ("where", "input")
        if on.get(name) is not None
    ]
    body = {name: value for name, value in on.items() if name not in ("where", "input")}
    inherited = {name: on[name] for name in ("stream", "event") if on.get(name) is not None}
    places = dict(_places(on[kind], kind))
    for place, part in places.items():
        at = f"{pointer}/{kind}/{place}"
        faults += check_trigger(part, at)
        if "stream" in part and "event" in part:
            faults.append(Fault(f"{at}/event", "`event` does not go with `stream`", "leave one out"))
        elif not inherited and part.get("stream") is None and part.get("event") is None:
            faults.append(Fault(at, "a stream or an event is missing", "stream: orders, or event: RunFailed"))
    read, shape = read_model(OnPartsModel, body, pointer)
    faults += [*shape, *_twice(places, f"{pointer}/{kind}")]
    if not faults:
        if kind == "absent" and read[kind]["expected"] is None:
            read[kind]["expected"] = read[kind]["after"]
        for part in dict(_places(read[kind], kind)).values():
            if part["stream"] is None and part["event"] is None:
                part.update(inherited)
        read = {"key": read["key"], kind: read[kind]}
    return read, faults


def _places(pattern: Any, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts there are, whatever the shape, by their place below the pattern."""
    if not isinstance(pattern, dict):
        return
    if kind == "absent":
        found = [(name, pattern.get(name)) for name in (AFTER, EXPECTED)]
    else:
        events = pattern.get("events")
        found = [(f"events/{n}", part) for n, part in enumerate(events if isinstance(events, list) else [])]
    yield from ((place, part) for place, part in found if isinstance(part, dict))


def _twice(places: Mapping[str, Mapping[str, Any]], pointer: str) -> Iterator[Fault]:
    first: dict[Any, str] = {}
    for place, part in places.items():
        name = part.get("name")
        if isinstance(name, str) and name in first:
            yield Fault(
                f"{pointer}/{place}/name", f"{name!r} is used twice", f"first at {pointer}/{first[name]}"
            )
        first.setdefault(str(name), place)


def _said(read: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not said, so that a definition without a pattern stays as it always was."""
    kept = {name: value for name, value in read.items() if value is not None or name in ("where", "input")}
    for kind in SEVERAL:
        if kind not in kept:
            continue
        pattern = dict(kept[kind])
        if kind == "absent":
            pattern |= {name: _said(pattern[name]) for name in (AFTER, EXPECTED)}
        else:
            pattern["events"] = [_said(part) for part in pattern["events"]]
        kept[kind] = pattern
    return kept


# --- compiling ------------------------------------------------------------------------------------


def _compile_source(on: Mapping[str, Any], key: str | None, pattern: Pattern | None = None) -> On:
    where, mapping = on["where"], on["input"]
    return On(
        None if where is None else compile_expression(where),
        None if mapping is None else compile_template(mapping),
        None if key is None else compile_template(key),
        pattern,
    )


def _compile_pattern(kind: str, on: Mapping[str, Any]) -> Pattern:
    said = on[kind]
    late = seconds(said["lateness"])
    match kind:
        case "debounce":
            quiet = seconds(said["quiet"])
            longest = 10 * quiet if said["max_wait"] is None else seconds(said["max_wait"])
            return Pattern("debounce", late, quiet=quiet, max_wait=longest)
        case "batch":
            return Pattern("batch", late, size=said["size"], time=seconds(said["time"]))
        case "throttle":
            window, last = seconds(said["window"]), said["keep"] == "last"
            return Pattern("throttle", late, limit=said["limit"], window=window, last=last)
        case "sequence" | "all_of" | "absent":
            sources = sources_of(on)
            return Pattern(
                kind, late, within=seconds(said["within"]), parts=tuple(map(str, sources)),
                sources=tuple(dict.fromkeys(sources.values())),
            )  # fmt: skip
    raise AssertionError(kind)
