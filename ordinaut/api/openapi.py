"""What /openapi.json says of bodies, parameters and errors. Requests are read by hand (see door), so what
the framework would have inferred is told here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ordinaut.api.auth import needs_no_key
from ordinaut.domain.definition_model import TaskModel

TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
ANY: dict[str, Any] = {"description": "Any JSON."}
INSTANT = {"type": "string", "format": "date-time"}
DURATION = {"type": "string", "examples": ["90s", "15m", "2h", "PT15M"]}

_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "limit": ("Items a page at most.", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
    "after": ("The `next` of the page before.", TEXT),
    "status": ("active, paused or retired.", TEXT),
    "label": ("key=value; repeatable.", TEXT),
    "task": ("A task's name or id.", TEXT),
    "state": ("A run's state; repeatable.", TEXT),
    "correlation": ("The correlation id.", TEXT),
    "stream": ("A stream of the log, such as run-….", TEXT),
    "type": ("An event type; repeatable.", TEXT),
    "actor": ("Who did it, such as key:admin.", TEXT),
    "since": ("From this instant on.", INSTANT),
    "until": ("Before this instant.", INSTANT),
    "from": ("From this instant on.", INSTANT),
    "to": ("Before this instant.", INSTANT),
    "order": ("asc or desc.", TEXT),
    "reason": ("Why; people will read it.", TEXT),
    "dry_run": ("true: check everything, change nothing.", FLAG),
}

_IN_PATH = re.compile(r"{(\w+)}")

_EXAMPLE = {
    "name": "morning-briefing",
    "title": "Weekday morning briefing",
    "schedule": {"cron": "30 8 * * 1-5", "timezone": "Europe/Chisinau"},
    "params": {"city": "Chisinau"},
    "pipeline": [{"id": "say", "uses": "debug.echo", "with": {"text": "Good morning, ${params.city}"}}],
}


def parameters(**described: str) -> dict[str, Any]:
    """Query parameters by name, with a description where the usual one does not fit; `wait` is the header
    `Ordinaut-Wait`."""
    listed: list[dict[str, Any]] = []
    for name, text in described.items():
        if name == "wait":
            what = "A position a command answered with: the answer is at least as new."
            listed.append({"name": "Ordinaut-Wait", "in": "header", "description": what, "schema": TEXT})
            continue
        usual, schema = _PARAMETERS[name]
        listed.append({"name": name, "in": "query", "description": text or usual, "schema": schema})
    return {"parameters": listed}


def body(properties: Mapping[str, Any], *, required: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON body with these fields and no others."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(properties),
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return {
        "requestBody": {"required": bool(required), "content": {"application/json": {"schema": schema}}},
        "parameters": [_key()],
    }


def task_body(*, name_required: bool = True, dry_run: bool = False) -> dict[str, Any]:
    """A body that holds a task's definition."""
    example = _EXAMPLE if name_required else {k: v for k, v in _EXAMPLE.items() if k != "name"}
    content = {"schema": {"$ref": "#/components/schemas/Task"}, "example": example}
    extra = parameters(dry_run="")["parameters"] if dry_run else [_key()]
    return {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "parameters": extra,
    }


def _key() -> dict[str, Any]:
    what = "The same key with the same request: carried out once, and answered the same."
    return {"name": "Idempotency-Key", "in": "header", "description": what, "schema": TEXT}


def describe(app: FastAPI) -> None:
    """Let `app.openapi()` say what this API is."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI wants it extended


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    task = TaskModel.model_json_schema(ref_template="#/components/schemas/{model}")
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= task.pop("$defs", {})
    schemas["Task"] = task
    schemas["Problem"] = {
        "type": "object",
        "description": "RFC 9457.",
        "properties": {
            "type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT,
            "errors": {
                "type": "array",
                "items": {"type": "object", "properties": {"pointer": TEXT, "detail": TEXT, "hint": TEXT}},
            },
        },
    }  # fmt: skip
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    problem = {
        "description": "What is wrong, and where.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, operations in schema["paths"].items():
        named = [
            {"name": name, "in": "path", "required": True, "schema": TEXT} for name in _IN_PATH.findall(path)
        ]
        for method, operation in operations.items():
            operation["parameters"] = [*named, *operation.get("parameters", [])]
            operation["responses"].pop("422", None)
            if path.startswith("/v1"):
                operation["security"] = [] if needs_no_key(method.upper(), path) else [{"key": []}]
                operation["responses"]["default"] = problem
    return dict(schema)
