"""Bad input: every request that is wrong is told what is wrong, and where."""

import contextlib
import copy
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.api import PIPELINE, Served, pointers, problem, running_api, task

LIMIT = 4096
PAST = "2026-01-01T00:00:00Z"


@pytest.fixture
async def api(database_url: str, redis_url: str) -> AsyncIterator[Served]:
    async with running_api(database_url, redis_url, max_body_bytes=LIMIT) as served:
        yield served


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"pipelin": []}, "/pipelin"),
        ({"title": 7}, "/title"),
        ({"name": "Not A Name"}, "/name"),
        ({"name": "5cf2e3ac-1d6a-8d6f-9e5b-0d5b6e3f9f10"}, "/name"),
        ({"schedule": {"cron": "61 * * * *"}}, "/schedule/cron"),
        ({"schedule": {"cron": "0 0 * * *", "timezone": "Europe/Nowhere"}}, "/schedule/timezone"),
        ({"schedule": {"rrule": "FREQ=NEVER"}}, "/schedule/rrule"),
        ({"schedule": {"every": "soon"}}, "/schedule/every"),
        ({"on": {"stream": "s", "where": "data.("}}, "/on/where"),
        ({"pipeline": [{"id": "a", "uses": "no.such"}]}, "/pipeline/0/uses"),
        ({"pipeline": [PIPELINE[0], PIPELINE[0]]}, "/pipeline/1/id"),
        ({"pipeline": [{**PIPELINE[0], "with": {"x": "${steps.nobody.y}"}}]}, "/pipeline/0/with/x"),
        ({"params": {"x": "a\x00b"}}, "/params/x"),
        ({"policy": {"priority": 10}}, "/policy/priority"),
    ],
)  # fmt: skip
async def test_a_bad_definition_is_refused_with_the_place(
    api: Served, change: dict[str, object], pointer: str
) -> None:
    document = task() | change
    answer = await api.http.post("/v1/tasks", json=document)
    problem(answer, 422)
    assert pointer in pointers(answer)
    assert all(error["detail"] for error in answer.json()["errors"])
    assert (await api.http.get("/v1/log", params={"type": "TaskCreated"})).json()["items"] == []


async def test_every_fault_is_named_at_once(api: Served) -> None:
    answer = await api.http.put(
        "/v1/tasks/x", json={"titel": "x", "pipeline": [{"id": "a b", "uses": "no.such"}]}
    )
    assert pointers(answer) == ["/titel", "/pipeline/0/id", "/pipeline/0/uses"]


async def test_the_name_in_the_body_must_be_the_one_in_the_path(api: Served) -> None:
    answer = await api.http.put("/v1/tasks/hello", json=task("bye"))
    assert pointers(answer) == ["/name"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"name": "x",\n "pipeline": [}', 400, "line 2 column 15"),
        (b'{"name": "\xff"}', 400, "UTF-8"),
        (b"[1]", 422, "object"),
        (b'{"params": ' + b"[" * 2000 + b"]" * 2000 + b"}", 400, "nested"),
        (b'{"params": ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}", 422, "nested"),
        (b'{"params": {"n": 123456789012345678901234567890}}', 422, "64 bits"),
        (b'{"params": {"n": ' + b"9" * 4000 + b"}}", 422, "64 bits"),
        (b'{"params": {"n": NaN}}', 400, "JSON"),
        (b'{"params": {"s": "\\ud800"}}', 400, "JSON"),
    ],
)  # fmt: skip
async def test_a_body_that_cannot_be_read_is_told_where(
    api: Served, body: bytes, status: int, words: str
) -> None:
    told = problem(await api.http.post("/v1/tasks", content=body), status)
    assert words in str(told["detail"])


async def test_too_large_a_body_is_refused_while_it_comes(api: Served) -> None:
    problem(await api.http.post("/v1/tasks", content=b" " * (LIMIT + 1)), 413)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100_000):
            yield b" " * 1000

    # The answer comes, and the connection is closed, before the client has sent it all.
    with contextlib.suppress(httpx.WriteError):
        problem(await api.http.post("/v1/tasks", content=endless()), 413)


async def test_an_encoded_body_is_refused(api: Served) -> None:
    problem(await api.http.post("/v1/tasks", content=b"x", headers={"Content-Encoding": "gzip"}), 415)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/tasks/hello/run", {"inputs": 1}, "/inputs"),
        ("/v1/tasks/hello/run", {"simulate": "yes"}, "/simulate"),
        ("/v1/tasks/hello/run", {"input": "\x00"}, "/input"),
        ("/v1/tasks/hello/pause", {"reason": 5}, "/reason"),
        ("/v1/tasks/hello/resume", {"until": "2030-01-01T00:00:00Z"}, "/until"),
        ("/v1/tasks/hello/snooze", {"until": "tomorrow"}, "/until"),
        ("/v1/tasks/hello/snooze", {"until": "2030-01-01T00:00:00"}, "/until"),
        ("/v1/tasks/hello/snooze", {"for": "a while"}, "/for"),
        ("/v1/tasks/hello/snooze", {"for": "1h", "until": "2030-01-01T00:00:00Z"}, "/for"),
        ("/v1/tasks/hello/backfill", {}, "/from"),
        ("/v1/tasks/hello/backfill", {"from": None}, "/from"),
        ("/v1/tasks/hello/backfill", {"from": "2026-01-01"}, "/from"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "to": PAST}, "/from"),
        ("/v1/tasks/hello/backfill", {"from": "9000-01-01T00:00:00Z"}, "/from"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "to": "9000-01-01T00:00:00Z"}, "/to"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "order": "random"}, "/order"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "max_parallel": 0}, "/max_parallel"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "max_parallel": 101}, "/max_parallel"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "max_parallel": True}, "/max_parallel"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "dry_run": "yes"}, "/dry_run"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "rerun": 1}, "/rerun"),
        ("/v1/tasks/hello/backfill", {"from": PAST, "dryrun": True}, "/dryrun"),
        ("/v1/events", {}, "/stream"),
        ("/v1/events", {"stream": "ordinaut:log"}, "/stream"),
        ("/v1/events", {"stream": "s", "data": {"a": "\x00"}}, "/data/a"),
        ("/v1/schedules/preview", {"cron": "* * * *"}, "/cron"),
        ("/v1/schedules/preview", {"every": "1h", "count": 0}, "/count"),
        ("/v1/schedules/preview", {"every": "1h", "tz": "UTC"}, "/tz"),
    ],
)  # fmt: skip
async def test_a_bad_field_of_a_command_is_named(
    api: Served, path: str, body: dict[str, object], pointer: str
) -> None:
    await api.http.post("/v1/tasks", json=task())
    answer = await api.http.post(path, json=body)
    problem(answer, 422)
    assert pointer in pointers(answer)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/tasks?limit=0", "limit"),
        ("/v1/tasks?limit=10000000000000000000000", "limit"),
        ("/v1/tasks?after=%%%", "after"),
        ("/v1/tasks?label=x", "label"),
        ("/v1/tasks?status=gone", "status"),
        ("/v1/tasks?name=x", "name"),
        ("/v1/runs?stat=failed", "stat"),
        ("/v1/runs?state=broken", "state"),
        ("/v1/runs?after=aGVsbG8", "after"),
        ("/v1/backfills?state=failed", "state"),
        ("/v1/backfills?after=aGVsbG8", "after"),
        ("/v1/dead-letters?state=failed", "state"),
        ("/v1/dead-letters?after=aGVsbG8", "after"),
        ("/v1/log?after=-1", "after"),
        ("/v1/log?type=TaskVanished", "type"),
        ("/v1/log?since=yesterday", "since"),
        ("/v1/log?actor=%00", "actor"),
        ("/v1/log/live?order=asc", "order"),
    ],
)
async def test_a_bad_query_parameter_is_named(api: Served, path: str, name: str) -> None:
    answer = await api.http.get(path)
    problem(answer, 400)
    assert answer.json()["errors"][0]["parameter"] == name


async def test_what_is_not_there_is_a_problem_too(api: Served) -> None:
    missing = "0190a5c0-0000-8000-8000-000000000000"
    for path in (
        "/v1/tasks/nobody",
        f"/v1/tasks/{missing}",
        "/v1/runs/x",
        f"/v1/runs/{missing}",
        "/v1/backfills/x",
        f"/v1/backfills/{missing}",
        "/v1/dead-letters/x",
        f"/v1/dead-letters/{missing}",
        "/v1/x",
        "/y",
    ):
        problem(await api.http.get(path), 404)
    problem(await api.http.post(f"/v1/backfills/{missing}/stop"), 404)
    problem(await api.http.post("/v1/tasks/nobody/backfill", json={"from": PAST}), 404)
    for path in ("/v1/tasks/%00", "/v1/tasks/%F0%9F%90%98", "/v1/runs/" + "x" * 3000):
        problem(await api.http.get(path), 404)
    wrong = await api.http.patch("/v1/tasks")
    told = problem(wrong, 405)
    assert wrong.headers["allow"] == "GET, HEAD, POST" and told["detail"].endswith("allowed: GET, HEAD, POST")
    wrong = await api.http.patch("/v1/tasks/hello")
    assert wrong.headers["allow"] == "DELETE, GET, HEAD, PUT"


@pytest.mark.parametrize(
    "path",
    ["/v1/tasks", "/v1/tasks/hello", "/v1/tasks/none", "/health/live", "/metrics", "/docs", "/openapi.json"],
)
async def test_head_is_answered_as_get_is_without_a_body(api: Served, path: str) -> None:
    created = await api.http.post("/v1/tasks", json=task())
    seen = {"Ordinaut-Wait": created.headers["Ordinaut-Position"]}
    got, headed = await api.http.get(path, headers=seen), await api.http.head(path, headers=seen)
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    assert headed.headers["content-type"] == got.headers["content-type"]
    assert path == "/metrics" or headed.headers["content-length"] == got.headers["content-length"]


async def test_head_of_a_stream_without_end_ends_and_the_connection_lives(api: Served) -> None:
    for _ in range(3):
        headed = await api.http.head("/v1/log/live")
        assert headed.status_code == 200 and headed.headers["content-type"].startswith("text/event-stream")
    assert (await api.http.get("/health/live")).status_code == 200
    problem(await api.http.get("/v1/log/none"), 404)
    assert (await api.http.head("/v1/events")).status_code == 405


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/events"])
@pytest.mark.parametrize(
    "body", [b'{"name": 1, "a": {"x": 1, "y": 2, "x": 3}}', b'{"n": 12345678901234567890, "x": 1, "x": 1}']
)
async def test_a_key_that_stands_twice_is_named(api: Served, path: str, body: bytes) -> None:
    answer = await api.http.post(path, content=body)
    assert problem(answer, 422)["errors"][0]["detail"] == "the key 'x' stands twice in one object"


async def test_an_unforeseen_error_tells_an_id_and_nothing_of_the_inside(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr("ordinaut.api.tasks.tasks_table.list_tasks", broken)
    answer = await api.http.get("/v1/tasks")
    told = problem(answer, 500)
    assert told["id"] and "secret" not in answer.text and "Traceback" not in answer.text


ODD: list[object] = [
    None,
    True,
    0,
    -1,
    1.5e308,
    2**63,
    2**64,
    "",
    "\x00",
    "\ud7ff",
    "${",
    "${a.b}",
    "0",
    "P1Y",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
    "* * * * *",
    "x" * 3000,
    [],
    {},
    [None],
    {"": ""},
    {"on": None},
    {"cron": "@reboot"},
    {"every": "99999999999w"},
    {"once": "10000-01-01T00:00:00Z"},
    "ordinaut:log",
]


async def test_no_body_however_odd_makes_an_unexpected_error(api: Served, seed: int) -> None:
    chance = random.Random(seed)
    await api.http.post("/v1/tasks", json=task())
    whole = task("odd", schedule={"every": "1h"}, policy={"priority": 5}, labels={"a": "b"}, title="t")
    commands: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/tasks", whole),
        ("PUT", "/v1/tasks/odd", whole),
        ("POST", "/v1/tasks/hello/run", {"input": 1, "simulate": False}),
        ("POST", "/v1/tasks/hello/snooze", {"until": "", "for": "", "reason": ""}),
        ("POST", "/v1/tasks/hello/resume", {}),
        ("POST", "/v1/tasks/odd/backfill", {"from": PAST, "to": PAST, "order": "newest", "max_parallel": 2}),
        ("POST", "/v1/tasks/odd/backfill", {"from": PAST, "dry_run": True, "rerun": True, "reason": ""}),
        ("POST", "/v1/events", {"stream": "s", "data": 1, "id": "x"}),
        ("POST", "/v1/schedules/preview", {"every": "1h", "after": "", "count": 3, "timezone": "UTC"}),
        ("POST", "/v1/schedules/preview", {"rrule": "FREQ=DAILY", "dtstart": "", "rdate": [], "exdate": []}),
        ("POST", "/v1/schedules/preview", {"once": "", "timezone": ""}),
    ]
    for _ in range(300):
        method, path, pattern = chance.choice(commands)
        body = copy.deepcopy(pattern)
        for _ in range(chance.randint(1, 2)):
            spoil(body, chance)
        answer = await api.http.request(method, path, content=json.dumps(body))
        assert answer.status_code < 500, (method, path, body, answer.text)


def spoil(body: dict[str, Any], chance: random.Random) -> None:
    """Put something odd somewhere into a document."""
    place: Any = body
    while place:
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.3:
            place[key] = copy.deepcopy(chance.choice(ODD))
            return
        place = place[key]
