"""A task's definition: read and checked once, then kept in the log in one normalised form.

`parse_definition` is for what people send: it checks everything and names every fault.
`load_definition` is for what the log holds: it trusts, compiles on first use, and is quick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson

from ordinaut.domain.definition_checks import STEP_ROOTS, check_pipeline
from ordinaut.domain.definition_model import TaskModel, close_match, read_model
from ordinaut.domain.definition_secrets import check_literals, secret_places
from ordinaut.domain.durations import seconds
from ordinaut.domain.errors import Fault, Invalid
from ordinaut.domain.expressions import Expression, Template, compile_expression, compile_template
from ordinaut.domain.jsonvalues import escape, faults_in
from ordinaut.domain.policy import CatchUp, Concurrency, Policy, Retry
from ordinaut.domain.schedules.spec import FIELDS, normalise_schedule, trigger_of
from ordinaut.domain.tool_input import ToolInput
from ordinaut.domain.trigger import On, compile_on, read_on

MAX_BYTES = 256 * 1024
"""The largest definition, as compact JSON in UTF-8."""

_SCHEDULE_FIELDS = frozenset({"on", *(name for names in FIELDS.values() for name in names)})


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """A step, ready to run: its templates compiled, its timeout in seconds. `secrets` are the places in
    its `with` that name secrets: (JSON Pointer, name of the secret), `roots` the names at the root that
    its `if` and its `with` use."""

    id: str
    tool: str
    title: str | None
    with_template: Template
    condition: Expression | None
    retry: Retry
    timeout_seconds: float
    save_as: str | None
    secrets: tuple[tuple[str, str], ...] = ()
    roots: frozenset[str] = STEP_ROOTS

    @property
    def names(self) -> tuple[str, ...]:
        """The names under `steps` that its output has: its id, and `save_as` when it is given."""
        return (self.id,) if self.save_as in (None, self.id) else (self.id, str(self.save_as))


@dataclass(frozen=True)
class Definition:
    """A checked definition. Immutable; what is compiled is compiled on first use and kept."""

    name: str
    document: Mapping[str, Any] = field(repr=False)

    def normalised(self) -> dict[str, Any]:
        """What the log keeps: exactly title, labels, schedule, params, pipeline and policy, with every
        default filled in and durations in one spelling. Do not change what you get."""
        return dict(self.document)

    @property
    def title(self) -> str | None:
        """What people call the task, when it is not its name."""
        title: str | None = self.document["title"]
        return title

    @property
    def params(self) -> dict[str, Any]:
        """The values `${params.…}` names."""
        params: dict[str, Any] = self.document["params"]
        return params

    @property
    def schedule(self) -> Any:
        """The normalised schedule: an object ({cron: …}, {on: …}, …), a list of those that name instants, or
        None for a task run by hand only."""
        return self.document["schedule"]

    @cached_property
    def on(self) -> On | None:
        """What the task listens to, or None."""
        on = trigger_of(self.schedule)
        return None if on is None else compile_on(on)

    @cached_property
    def steps(self) -> tuple[CompiledStep, ...]:
        """The pipeline, compiled."""
        return tuple(_compile_step(step) for step in self.document["pipeline"])

    @cached_property
    def policy(self) -> Policy:
        """The policies, in seconds."""
        return _compile_policy(self.document["policy"])


def parse_definition(
    document: Mapping[str, Any], *, created_at: datetime, known_tools: Mapping[str, ToolInput] | None
) -> Definition:
    """Read a definition that somebody sent.

    `created_at` (UTC) is the task's creation, from which schedules without a start begin.
    `known_tools` says, by name, what the tools take that there are; None leaves that unchecked. Raises
    Invalid with every fault, in the order of the document.
    """
    if not isinstance(document, Mapping):
        raise Invalid.at("", "a task definition is an object", "{name: …, pipeline: [{id: …, uses: …}]}")
    sent = dict(document)
    if stored := faults_in(sent):
        raise Invalid.all_of(stored)
    if (size := len(orjson.dumps(sent))) > MAX_BYTES:
        raise Invalid.at("", f"the definition has {size} bytes; at most {MAX_BYTES} are allowed")
    faults, body = _hoist_on(sent)
    whole, shape_faults = read_model(TaskModel, body)
    faults += shape_faults
    faults += check_pipeline(body, known_tools)
    faults += check_literals(sent)
    on_at = "/on" if "on" in sent and "schedule" not in sent else "/schedule/on"
    schedule, schedule_faults = _schedule(body.get("schedule"), created_at, on_at)
    faults += schedule_faults
    if faults:
        raise Invalid.all_of(_in_order(faults, sent))
    name = whole.pop("name")
    return Definition(name, {**whole, "schedule": schedule})


def load_definition(normalised: Mapping[str, Any], name: str = "") -> Definition:
    """The definition that the log keeps as `normalised`; nothing is checked again."""
    return Definition(name, normalised)


def _hoist_on(sent: dict[str, Any]) -> tuple[list[Fault], dict[str, Any]]:
    """Put a top-level `on` where it belongs, under `schedule`."""
    if "on" not in sent:
        return [], sent
    body = {key: value for key, value in sent.items() if key != "on"}
    if body.get("schedule") is not None:
        return [Fault("/on", "a task has one schedule", "either `schedule` or `on`")], body
    return [], {**body, "schedule": {"on": sent["on"]}}


def _schedule(spec: Any, created_at: datetime, on_at: str) -> tuple[Any, list[Fault]]:
    if not isinstance(spec, (dict, list)):
        return None, []
    if unknown := _unknown_fields(spec):
        return None, unknown
    if isinstance(spec, list) or "on" not in spec:
        try:
            return normalise_schedule(spec, created_at=created_at), []
        except Invalid as invalid:
            return None, [fault.under("/schedule") for fault in invalid.faults]
    others = [key for key in spec if key != "on"]
    faults = [Fault(f"/schedule/{key}", f"{key!r} does not go with `on`", "leave one out") for key in others]
    if not isinstance(spec["on"], dict):
        return None, [*faults, Fault(on_at, "`on` is an object", "{stream: orders}")]
    on, found = read_on(spec["on"], on_at)
    faults += found
    return (None, faults) if faults else ({"on": on}, [])


def _unknown_fields(spec: dict[str, Any] | list[Any]) -> list[Fault]:
    single = isinstance(spec, dict)
    known = _SCHEDULE_FIELDS if single else _SCHEDULE_FIELDS - {"on"}
    faults = []
    for index, member in enumerate([spec] if single else spec):
        at = "/schedule" if single else f"/schedule/{index}"
        for key in member if isinstance(member, dict) else ():
            if key == "on" and not single:
                hint = "let `schedule` be that one object, or make it a task of its own"
                faults.append(Fault(f"{at}/on", "`on` does not go into a list of schedules", hint))
            elif key not in known:
                hint = close_match(key, known)
                faults.append(Fault(f"{at}/{escape(key)}", f"there is no field {key!r}", hint))
    return faults


def _in_order(faults: list[Fault], document: Mapping[str, Any]) -> list[Fault]:
    """Sorted as the document has its fields; within a field, as found, list items by number."""
    fields = [escape(key) for key in document]

    def rank(fault: Fault) -> tuple[int, int]:
        parts = fault.pointer.split("/")
        first = parts[1] if len(parts) > 1 else ""
        number = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else -1
        return (fields.index(first) if first in fields else len(fields), number)

    return sorted(dict.fromkeys(faults), key=rank)


def _compile_step(step: Mapping[str, Any]) -> CompiledStep:
    retry, given = step["retry"], compile_template(step["with"])
    condition = None if step["if"] is None else compile_expression(step["if"])
    return CompiledStep(
        id=step["id"],
        tool=step["uses"],
        title=step["title"],
        with_template=given,
        condition=condition,
        retry=Retry(
            max_attempts=retry["max_attempts"],
            backoff=retry["backoff"],
            base=seconds(retry["base"]),
            max=seconds(retry["max"]),
            jitter=retry["jitter"],
        ),
        timeout_seconds=seconds(step["timeout"]),
        save_as=step["save_as"],
        secrets=secret_places(given),
        roots=_roots([*(one for _, one in given.expressions), *([condition] if condition else [])]),
    )


def _roots(expressions: Sequence[Expression]) -> frozenset[str]:
    if any(one.takes_everything for one in expressions):
        return STEP_ROOTS
    return frozenset().union(*(one.roots for one in expressions))


def _compile_policy(policy: Mapping[str, Any]) -> Policy:
    concurrency, catch_up = policy["concurrency"], policy["catch_up"]
    if isinstance(catch_up, str):
        late = CatchUp("none" if catch_up == "none" else "latest")
    else:
        window = catch_up["all"]["window"]
        late = CatchUp("all", catch_up["all"]["max"], None if window is None else seconds(window))
    return Policy(
        priority=policy["priority"],
        timeout=seconds(policy["timeout"]),
        max_attempts=policy["max_attempts"],
        concurrency=concurrency and Concurrency(compile_template(concurrency["key"]), concurrency["limit"]),
        catch_up=late,
        overlap=policy["overlap"],
        jitter=seconds(policy["jitter"]),
    )


def diff_definitions(old: Any, new: Any, pointer: str = "") -> list[tuple[str, Any, Any]]:
    """What differs between two normalised definitions: (JSON Pointer, old value, new value).

    What is on one side only has None on the other. Lists are compared item by item.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(escape(key), old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list):
        pairs = [
            (str(i), old[i] if i < len(old) else None, new[i] if i < len(new) else None)
            for i in range(max(len(old), len(new)))
        ]
    else:
        same = old == new and isinstance(old, bool) is isinstance(new, bool)
        return [] if same else [(pointer, old, new)]
    return [
        one for key, before, after in pairs for one in diff_definitions(before, after, f"{pointer}/{key}")
    ]
