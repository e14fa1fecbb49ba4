"""Webhooks: which there are, who may deliver, and what becomes of a delivery."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from ordinaut.runtime.keys import issue_key
from tests.support import hooks as sign
from tests.support.api import Served, pointers, problem, running_api
from tests.support.delivering import (
    BODY,
    OTHER,
    SECRETS,
    define,
    deliver,
    events,
    listen,
    signed,
)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in SECRETS:
        monkeypatch.setenv(f"ORDINAUT_SECRET_{kind.upper()}_HOOK", SECRETS[kind])
        monkeypatch.setenv(f"ORDINAUT_SECRET_{kind.upper()}_NEW", OTHER[kind])


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, projector=False) as served:
        yield served


async def test_a_hook_is_defined_shown_listed_and_removed(api: Served) -> None:
    created = await define(api, "github", reason="deploys")
    assert created.status_code == 201
    assert created.headers["Location"] == "/v1/hooks/pay"
    hook = created.json()
    assert {**hook, "changed_at": None} == {
        "name": "pay", "space": "default", "kind": "github", "stream": "money", "secrets": ["github_hook"],
        "path": "/v1/hooks/pay", "version": 1, "reason": "deploys", "changed_at": None,
        "changed_by": "key:admin",
    }  # fmt: skip
    again = await define(api, "github", reason="another")
    assert (again.status_code, again.json()) == (200, hook)
    changed = await define(api, "github", stream="code")
    assert (changed.json()["version"], changed.json()["stream"]) == (2, "code")
    assert (await api.http.get("/v1/hooks/pay")).json() == changed.json()
    await define(api, "stripe", "another")
    page = (await api.http.get("/v1/hooks", params={"limit": 1})).json()
    rest = (await api.http.get("/v1/hooks", params={"after": page["next"]})).json()
    assert [one["name"] for one in page["items"] + rest["items"]] == ["another", "pay"]
    assert rest["next"] is None
    gone = await api.http.delete("/v1/hooks/pay", params={"reason": "no more"})
    assert gone.status_code == 200
    problem(await api.http.get("/v1/hooks/pay"), 404)
    problem(await api.http.delete("/v1/hooks/pay"), 404)
    assert [one["name"] for one in (await api.http.get("/v1/hooks")).json()["items"]] == ["another"]
    assert (await define(api, "github")).status_code == 201


async def test_who_changed_a_hook_and_why_is_in_the_log(api: Served) -> None:
    await define(api, "github", reason="deploys")
    await api.http.delete("/v1/hooks/pay", params={"reason": "no more"})
    defined, removed = await events(api, "HookDefined", "HookRemoved")
    assert defined["stream"] == removed["stream"] and defined["stream"].startswith("hook-")
    assert (defined["actor"], removed["actor"]) == ("key:admin", "key:admin")
    assert defined["data"] == {
        "name": "pay", "kind": "github", "stream": "money", "secrets": ["github_hook"], "reason": "deploys",
    }  # fmt: skip
    assert removed["data"] == {"name": "pay", "reason": "no more"}


@pytest.mark.parametrize(
    ("more", "places"),
    [
        ({"kind": "gitlab"}, ["/kind"]),
        ({"stream": "ordinaut:log"}, ["/stream"]),
        ({"stream": "orders.*"}, ["/stream"]),
        ({"stream": None}, ["/stream"]),
        ({"secrets": "github_hook"}, ["/secrets"]),
        ({"secrets": []}, ["/secrets"]),
        ({"secrets": ["github_hook", "github_hook"]}, ["/secrets"]),
        ({"secrets": ["a", "b", "c"]}, ["/secrets"]),
        ({"secrets": [7]}, ["/secrets/0"]),
        ({"secrets": ["a/b"]}, ["/secrets/0"]),
        ({"secrets": ["github_hook", "not_there"]}, ["/secrets/1"]),
        ({"kind": "standard"}, ["/secrets/0"]),
        ({"extra": 1}, ["/extra"]),
    ],
)
async def test_a_bad_hook_is_refused_by_place(api: Served, more: dict[str, Any], places: list[str]) -> None:
    body = {"kind": "github", "stream": "money", "secrets": ["github_hook"], **more}
    answer = await api.http.put("/v1/hooks/pay", json=body)
    problem(answer, 422)
    assert pointers(answer) == places
    assert await events(api, "HookDefined") == []


async def test_a_hook_s_name_is_a_name(api: Served) -> None:
    body = {"kind": "github", "stream": "money", "secrets": ["github_hook"]}
    for name in ("Pay", "p%20y", "x" * 129):
        problem(await api.http.put(f"/v1/hooks/{name}", json=body), 422)


async def test_only_an_admin_sets_hooks_and_a_reader_sees_names_of_secrets_only(api: Served) -> None:
    await define(api, "stripe")
    body = {"kind": "github", "stream": "money", "secrets": ["github_hook"]}
    for role in ("operator", "reader"):
        _, key = await issue_key(api.system, space="default", agent=f"an-{role}", role=role)
        async with api.client(key) as http:
            problem(await http.put("/v1/hooks/pay", json=body), 403)
            problem(await http.delete("/v1/hooks/pay"), 403)
            seen = await http.get("/v1/hooks/pay")
            assert seen.json()["secrets"] == ["stripe_hook"]
    async with api.client(None) as http:
        for answer in (await http.get("/v1/hooks"), await http.get("/v1/hooks/pay")):
            problem(answer, 401)
        problem(await http.put("/v1/hooks/pay", json=body), 401)


async def test_the_description_says_what_needs_no_key(api: Served) -> None:
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    free = {
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if path.startswith("/v1") and not operation["security"]
    }
    hooks = ("/v1/hooks/{name}", "/v1/hooks/{space}/{name}")
    asked = ("/v1/events", "/v1/events:batch", *hooks)
    assert free == {("post", path) for path in hooks} | {("options", path) for path in asked}


# What they deliver


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("standard", {"id": "msg_1", "type": "invoice.paid"}),
        ("github", {"id": "d-1", "type": "push"}),
        ("stripe", {"id": "evt_1", "type": "invoice.paid"}),
    ],
)
async def test_a_signed_delivery_is_an_event_and_starts_runs(
    api: Served, kind: str, seen: dict[str, str]
) -> None:
    await define(api, kind)
    await listen(api, where="data.amount == `7`", input={"event": "${event}", "data": "${data}"})
    answer = await deliver(api, signed(api, kind))
    assert answer.status_code == 202, answer.text
    (received,) = await events(api, "EventReceived")
    (run,) = await events(api, "RunRequested")
    assert answer.json() == {
        "id": received["stream"].removeprefix("event-"),
        "runs": [run["stream"].removeprefix("run-")],
    }
    assert (received["actor"], received["causation"]) == ("hook:pay", f"hook:pay/{seen['id']}")
    assert received["data"]["stream"] == "money"
    attributes = {
        "specversion": "1.0", "source": "/v1/hooks/pay", "hook": "pay", "kind": kind,
        "datacontenttype": "application/json; charset=utf-8",
    }  # fmt: skip
    assert run["data"]["input"] == {"event": attributes | seen, "data": json.loads(BODY)}


@pytest.mark.parametrize("kind", list(SECRETS))
async def test_a_delivery_that_comes_again_is_the_same_event(api: Served, kind: str) -> None:
    await define(api, kind)
    await listen(api)
    answers = [await deliver(api, signed(api, kind, minutes=minute)) for minute in (-2, -1, 0)]
    answers += await asyncio.gather(*[deliver(api, signed(api, kind)) for _ in range(10)])
    assert {answer.status_code for answer in answers} == {202}
    assert [answer.json() for answer in answers] == [answers[0].json()] * 13
    assert len(await events(api, "EventReceived", "RunRequested")) == 2
    other = await deliver(api, sign.github(BODY, delivery="d-2")) if kind == "github" else None
    assert other is None or other.json()["id"] != answers[0].json()["id"]


@pytest.mark.parametrize("kind", list(SECRETS))
async def test_while_a_secret_is_replaced_both_are_good(api: Served, kind: str) -> None:
    old, new = signed(api, kind), signed(api, kind, BODY, OTHER[kind])
    await define(api, kind)
    problem(await deliver(api, new), 401)
    await define(api, kind, secrets=[f"{kind}_new", f"{kind}_hook"])
    assert [(await deliver(api, headers)).status_code for headers in (old, new)] == [202, 202]
    await define(api, kind, secrets=[f"{kind}_new"])
    assert [(await deliver(api, headers)).status_code for headers in (old, new)] == [401, 202]


async def test_a_secret_from_a_file_counts_from_the_next_delivery_on(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "mounted").write_text("first\n")
    async with running_api(database_url, redis_url, projector=False, secrets_dir=tmp_path) as api:
        await define(api, "github", secrets=["mounted"])
        assert (await deliver(api, sign.github(BODY, "first"))).status_code == 202
        (tmp_path / "mounted").write_text("second")
        problem(await deliver(api, sign.github(BODY, "first")), 401)
        assert (await deliver(api, sign.github(BODY, "second"))).status_code == 202


async def test_a_body_is_kept_as_what_it_is(api: Served) -> None:
    await define(api, "github")
    await define(api, "standard", "plain")
    form = urlencode({"payload": '{"ref": "main é"}'}).encode()
    sent = [
        ("/v1/hooks/pay", sign.github(form, delivery="f"), form, "application/x-www-form-urlencoded"),
        ("/v1/hooks/plain", signed(api, "standard", b"hello"), b"hello", "text/plain"),
    ]
    for path, headers, body, content_type in sent:
        assert (await deliver(api, headers | {"Content-Type": content_type}, body, path)).status_code == 202
    first, second = [event["data"]["data"] for event in await events(api, "EventReceived")]
    assert (first["data"], first["datacontenttype"]) == ({"ref": "main é"}, "application/json")
    assert (second["data"], second["type"]) == ("hello", "webhook")


async def test_a_delivery_that_is_signed_and_cannot_be_read_is_told_so(api: Served) -> None:
    for kind in SECRETS:
        await define(api, kind, kind)
    broken = await deliver(api, signed(api, "github", b"{"), b"{", "/v1/hooks/github")
    problem(broken, 400)
    unnamed = signed(api, "github") | {"X-GitHub-Delivery": ""}
    problem(await deliver(api, unnamed, path="/v1/hooks/github"), 400)
    no_form = sign.github(b"a=b") | {"Content-Type": "application/x-www-form-urlencoded"}
    problem(await deliver(api, no_form, b"a=b", "/v1/hooks/github"), 422)
    for body, place in ((b'{"type": "x"}', "/id"), (b'"text"', "/id"), (b'{"id": "\\u0000"}', "/id")):
        refused = await deliver(api, signed(api, "stripe", body), body, "/v1/hooks/stripe")
        problem(refused, 422)
        assert pointers(refused) == [place]
    deep = b"[" * 64 + b"]" * 64
    refused = await deliver(api, signed(api, "standard", deep), deep, "/v1/hooks/standard")
    problem(refused, 422)
    assert pointers(refused)[0].startswith("/0/0")
    assert await events(api, "EventReceived", "HookRefused") == []


async def test_unknown_and_removed_hooks_are_404_and_too_much_is_413(api: Served) -> None:
    problem(await deliver(api, signed(api, "github")), 404)
    await define(api, "github")
    big = b" " * (1024 * 1024 + 1)
    problem(await deliver(api, signed(api, "github", big), big), 413)
    await api.http.delete("/v1/hooks/pay")
    problem(await deliver(api, signed(api, "github")), 404)
    problem(await deliver(api, signed(api, "github"), path="/v1/hooks/a/b/c"), 404)
    assert await events(api, "HookRefused", "EventReceived") == []


async def test_a_hook_of_another_space_has_a_path_of_its_own(api: Served) -> None:
    _, key = await issue_key(api.system, space="team-a", agent="boss", role="admin")
    async with api.client(key) as http:
        body = {"kind": "github", "stream": "money", "secrets": ["github_hook"]}
        path = (await http.put("/v1/hooks/pay", json=body)).json()["path"]
        assert path == "/v1/hooks/team-a/pay"
        problem(await deliver(api, signed(api, "github")), 404)
        assert (await deliver(api, signed(api, "github"), path=path)).status_code == 202
        log = (await http.get("/v1/log", params={"type": "EventReceived"})).json()["items"]
        assert [(event["space"], event["actor"]) for event in log] == [("team-a", "hook:pay")]
    assert (await api.http.get("/v1/hooks")).json()["items"] == []
    assert await events(api, "EventReceived") == []
