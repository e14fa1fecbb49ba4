"""Hooks defined over HTTP, and deliveries to them, signed."""

import base64
from datetime import timedelta
from typing import Any

import httpx

from tests.support import hooks as sign
from tests.support import listening
from tests.support.api import PIPELINE, Served

BODY = b'{"id": "evt_1", "type": "invoice.paid", "amount": 7}'
SECRETS = {"standard": sign.STANDARD_SECRET, "github": sign.GITHUB_SECRET, "stripe": sign.STRIPE_SECRET}
OTHER = {"standard": "whsec_" + base64.b64encode(b"n" * 24).decode(), "github": "new", "stripe": "whsec_new"}


async def define(api: Served, kind: str, name: str = "pay", **more: Any) -> httpx.Response:
    body = {"kind": kind, "stream": "money", "secrets": [f"{kind}_hook"], **more}
    answer = await api.http.put(f"/v1/hooks/{name}", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer


async def listen(api: Served, **on: Any) -> None:
    body = {"on": {"stream": "money", **on}, "pipeline": PIPELINE}
    answer = await api.http.put("/v1/tasks/book", json=body)
    assert answer.status_code in (200, 201), answer.text


def signed(api: Served, kind: str, body: bytes = BODY, *secrets: str, minutes: float = 0) -> dict[str, str]:
    seconds = int((api.system.time.now() + timedelta(minutes=minutes)).timestamp())
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    if kind == "github":
        return json_type | sign.github(body, *secrets)
    if kind == "stripe":
        return json_type | sign.stripe(body, seconds, *secrets)
    return json_type | sign.standard(body, seconds, "msg_1", *secrets)


async def deliver(
    api: Served, headers: dict[str, str], body: bytes = BODY, path: str = "/v1/hooks/pay"
) -> httpx.Response:
    async with api.client(None) as http:
        return await http.post(path, content=body, headers=headers)


async def events(api: Served, *types: str) -> list[dict[str, Any]]:
    found = await api.http.get("/v1/log", params={"type": types, "limit": 500})
    return list(found.json()["items"])


async def refused_after_the_end(api: Served) -> list[dict[str, Any]]:
    """The refusals on record when the API has come to its end."""
    api.stop.set()
    await api.serving
    return [event.data for event in await listening.events(api.system, "HookRefused")]


# Which hooks there are
