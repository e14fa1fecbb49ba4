"""Webhooks: what is refused, and what no failure loses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from ordinaut.log.appender import Appender
from ordinaut.runtime import hooks as runtime_hooks
from tests.conftest import StartRole
from tests.support import hooks as sign
from tests.support.api import KEY, PIPELINE, Served, problem, running_api
from tests.support.delivering import (
    BODY,
    OTHER,
    SECRETS,
    define,
    deliver,
    events,
    refused_after_the_end,
    signed,
)
from tests.support.eventually import eventually


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in SECRETS:
        monkeypatch.setenv(f"ORDINAUT_SECRET_{kind.upper()}_HOOK", SECRETS[kind])
        monkeypatch.setenv(f"ORDINAUT_SECRET_{kind.upper()}_NEW", OTHER[kind])


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, projector=False) as served:
        yield served


# What is refused


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("standard", {"webhook-signature": "v1,abc"}, "wrong"),
        ("standard", {"webhook-signature": ""}, "malformed"),
        ("standard", {"webhook-signature": "v1a,abc"}, "asymmetric"),
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
