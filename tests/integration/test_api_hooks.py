"""Webhooks: which there are, who may deliver, and what becomes of a delivery."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import pytest

from ordinaut.log.append import Appender
from ordinaut.runtime import hooks as runtime_hooks
from ordinaut.runtime.keys import issue_key
from tests.conftest import StartRole
from tests.support import hooks as sign
from tests.support import listening
from tests.support.api import KEY, PIPELINE, Served, pointers, problem, running_api
from tests.support.eventually import eventually

BODY = b'{"id": "evt_1", "type": "invoice.paid", "amount": 7}'
SECRETS = {"standard": sign.STANDARD_SECRET, "github": sign.GITHUB_SECRET, "stripe": sign.STRIPE_SECRET}
OTHER = {"standard": "whsec_" + base64.b64encode(b"n" * 24).decode(), "github": "new", "stripe": "whsec_new"}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in SECRETS:
        monkeypatch.setenv(f"ORDINAUT_SECRET_{kind.upper()}_HOOK", SECRETS[kind])
        monkeypatch.setenv(f"ORDINAUT_SECRET_{kind.upper()}_NEW", OTHER[kind])


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, projector=False) as served:
        yield served


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
    assert free == {("post", "/v1/hooks/{name}"), ("post", "/v1/hooks/{space}/{name}")}


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


# What is refused


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("standard", {"webhook-signature": "v1,abc"}, "wrong"),
        ("standard", {"webhook-signature": ""}, "malformed"),
        ("standard", {"webhook-id": "msg_2"}, "wrong"),
        ("github", {"X-Hub-Signature-256": "sha256=00"}, "wrong"),
        ("github", {"X-Hub-Signature-256": None}, "missing"),
        ("stripe", {"Stripe-Signature": None}, "missing"),
        ("stripe", {"Stripe-Signature": "t=soon,v1=00"}, "malformed"),
    ],
)
async def test_a_wrong_or_missing_signature_is_401_and_on_record(
    api: Served, kind: str, change: dict[str, str | None], reason: str
) -> None:
    await define(api, kind)
    changed = signed(api, kind) | change
    headers = {name: value for name, value in changed.items() if value is not None}
    answer = await deliver(api, headers)
    refused = problem(answer, 401)
    assert refused["type"] == "urn:ordinaut:problem:signature-refused"
    assert "Bearer" not in answer.headers["WWW-Authenticate"]
    (record,) = await events(api, "HookRefused")
    (defined,) = await events(api, "HookDefined")
    assert record["data"] | {"from": "", "to": ""} == {
        "hook": defined["stream"].removeprefix("hook-"), "name": "pay", "kind": kind, "count": 1,
        "reasons": {reason: 1}, "from": "", "to": "",
    }  # fmt: skip
    assert (record["actor"], record["causation"]) == ("hook:pay", "hook:pay")
    assert await events(api, "EventReceived") == []


@pytest.mark.parametrize("kind", ["standard", "stripe"])
async def test_an_old_signature_is_401_and_so_is_one_from_the_future(api: Served, kind: str) -> None:
    await define(api, kind)
    for minutes, words in ((-6, "ago"), (6, "from now")):
        answer = await deliver(api, signed(api, kind, minutes=minutes))
        assert words in str(problem(answer, 401)["detail"])
    assert (await events(api, "HookRefused"))[0]["data"]["reasons"] == {"old": 1}


async def test_a_flood_of_wrong_signatures_does_not_flood_the_log(api: Served) -> None:
    await define(api, "github")
    await define(api, "github", "quiet")
    wrong = signed(api, "github", BODY, "guess")
    answers = await asyncio.gather(*[deliver(api, wrong) for _ in range(100)])
    assert {answer.status_code for answer in answers} == {401}
    problem(await deliver(api, wrong, path="/v1/hooks/quiet"), 401)
    first, other = await events(api, "HookRefused")
    assert (first["data"]["count"], other["data"]["name"]) == (1, "quiet")
    missing = {name: value for name, value in wrong.items() if "Signature" not in name}
    problem(await deliver(api, missing), 401)
    *_, rest = await refused_after_the_end(api)
    assert (rest["count"], rest["reasons"]) == (100, {"missing": 1, "wrong": 99})
    assert rest["from"] < rest["to"]


async def test_what_was_counted_is_recorded_when_the_pause_is_over(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_hooks, "PAUSE_SECONDS", 0.2)
    await define(api, "github")
    for _ in range(5):
        problem(await deliver(api, signed(api, "github", BODY, "guess")), 401)

    async def all_counted() -> bool:
        return sum(event["data"]["count"] for event in await events(api, "HookRefused")) == 5

    await eventually(all_counted)


async def test_refusals_that_cannot_be_recorded_are_counted_on(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await define(api, "github")
    append = Appender.append

    async def away(*_: Any) -> Any:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    monkeypatch.setattr(Appender, "append", away)
    problem(await deliver(api, signed(api, "github", BODY, "guess")), 503)
    monkeypatch.setattr(Appender, "append", append)
    problem(await deliver(api, signed(api, "github", BODY, "guess")), 401)
    (record,) = await refused_after_the_end(api)
    assert record["count"] == 2


async def test_a_secret_that_is_gone_is_not_the_sender_s_fault(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await define(api, "github", secrets=["github_new", "github_hook"])
    monkeypatch.delenv("ORDINAUT_SECRET_GITHUB_NEW")
    assert (await deliver(api, signed(api, "github"))).status_code == 202
    answer = await deliver(api, signed(api, "github", BODY, OTHER["github"]))
    assert "github_new" not in str(problem(answer, 503))
    (record,) = await events(api, "HookRefused")
    assert record["data"]["reasons"] == {"secret": 1}
    monkeypatch.setenv("ORDINAUT_SECRET_GITHUB_NEW", OTHER["github"])
    assert (await deliver(api, signed(api, "github", BODY, OTHER["github"]))).status_code == 202


async def test_i11_a_hook_s_secret_is_nowhere(
    api: Served, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = []
    for kind in SECRETS:
        said.append((await define(api, kind, kind)).text)
        said.append((await deliver(api, signed(api, kind), path=f"/v1/hooks/{kind}")).text)
        wrong = signed(api, kind, BODY, OTHER[kind])
        said.append((await deliver(api, wrong, path=f"/v1/hooks/{kind}")).text)
        # A value where a name belongs is not taken, and not repeated.
        body = {"kind": kind, "stream": "money", "secrets": [SECRETS[kind].replace(" ", "").replace("'", "")]}
        mistaken = await api.http.put(f"/v1/hooks/{kind}", json=body)
        problem(mistaken, 422)
        said.append(mistaken.text)
    said.append((await api.http.get("/v1/hooks")).text)
    for (table,) in await api.system.pool.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    ):
        said += [row[0] for row in await api.system.pool.fetch(f'SELECT t::text FROM "{table}" AS t')]
    said += capfd.readouterr()
    everything = "\n".join(said)
    assert "invoice.paid" in everything
    assert [value for value in SECRETS.values() if value.removeprefix("whsec_") in everything] == []


async def test_i1_i7_deliveries_that_are_sent_until_they_are_heard_count_once_each(
    start_role: StartRole, database_url: str, redis_url: str
) -> None:
    """The API is killed again and again while a sender delivers; each delivery is one event with one run."""
    env = {"ORDINAUT_API_KEY": KEY, "ORDINAUT_SECRET_GITHUB_HOOK": sign.GITHUB_SECRET}
    process = await asyncio.to_thread(start_role, "api", env=env)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=process.api, headers=headers, timeout=10) as http:
        body = {"kind": "github", "stream": "money", "secrets": ["github_hook"]}
        assert (await http.put("/v1/hooks/pay", json=body)).status_code == 201
        task = {"on": {"stream": "money"}, "pipeline": PIPELINE}
        assert (await http.put("/v1/tasks/book", json=task)).status_code == 201
    heard: dict[str, dict[str, Any]] = {}
    where = [process.api]

    async def send(delivery: str) -> None:
        async with httpx.AsyncClient(timeout=10) as http:
            while delivery not in heard:
                try:
                    url = f"{where[0]}/v1/hooks/pay"
                    answer = await http.post(url, content=BODY, headers=sign.github(BODY, delivery=delivery))
                except httpx.HTTPError:
                    await asyncio.sleep(0.02)
                    continue
                if answer.status_code == 202:
                    heard[delivery] = answer.json()

    async def sender(number: int) -> None:
        for count in range(40):
            await send(f"d-{number}-{count}")

    senders = asyncio.gather(*[sender(number) for number in range(4)])
    for wanted in (40, 100):
        await eventually(lambda: len(heard) >= wanted, 60)  # noqa: B023
        await asyncio.to_thread(process.kill)
        process = await asyncio.to_thread(start_role, "api", env=env)
        where[0] = process.api
    await senders
    connection = await asyncpg.connect(database_url)
    try:
        found = await connection.fetch(
            "SELECT stream, type FROM events WHERE type IN ('EventReceived', 'RunRequested')"
        )
    finally:
        await connection.close()
    received = [row["stream"] for row in found if row["type"] == "EventReceived"]
    runs = [row["stream"] for row in found if row["type"] == "RunRequested"]
    assert sorted(received) == sorted(f"event-{one['id']}" for one in heard.values())
    assert sorted(runs) == sorted(f"run-{run}" for one in heard.values() for run in one["runs"])
    assert len(received) == len(runs) == 160
