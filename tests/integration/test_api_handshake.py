"""Senders that ask before they send: HTTP 1.1 Web Hooks for Event Delivery, section 4."""

from collections.abc import AsyncIterator

import pytest

from ordinaut.runtime.keys import issue_key
from tests.support import hooks as sign
from tests.support.api import Served, problem, running_api
from tests.support.delivering import define

ASKED = {
    "WebHook-Request-Origin": "eventemitter.example.com",
    "WebHook-Request-Callback": "https://example.com/confirm?key=x",
    "WebHook-Request-Rate": "120",
}


@pytest.fixture
async def api(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setenv("ORDINAUT_SECRET_GITHUB_HOOK", sign.GITHUB_SECRET)
    async with running_api(database_url, redis_url, projector=False) as served:
        yield served


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events?stream=orders", "/v1/events:batch"])
async def test_events_are_expected_from_everybody_who_asks(api: Served, path: str) -> None:
    async with api.client(None) as http:
        answer = await http.options(path, headers=ASKED)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["WebHook-Allowed-Origin"] == "eventemitter.example.com"
        assert answer.headers["WebHook-Allowed-Rate"] == "*"
        assert answer.headers["Allow"] == "OPTIONS, POST"
        # What was agreed upon is no permission.
        problem(await http.post(path, json={"stream": "orders"}), 401)


async def test_deliveries_are_expected_where_there_is_a_hook(api: Served) -> None:
    await define(api, "github")
    _, key = await issue_key(api.system, space="other", agent="other", role="admin")
    async with api.client(key) as http:
        body = {"kind": "github", "stream": "money", "secrets": ["github_hook"]}
        assert (await http.put("/v1/hooks/theirs", json=body)).status_code == 201
    async with api.client(None) as http:
        for path in ("/v1/hooks/pay", "/v1/hooks/other/theirs"):
            answer = await http.options(path, headers=ASKED)
            assert answer.status_code == 200
            assert answer.headers["WebHook-Allowed-Origin"] == "eventemitter.example.com"
            assert "POST" in answer.headers["Allow"].split(", ")
        for path in ("/v1/hooks/unknown", "/v1/hooks/theirs", "/v1/hooks/other/pay"):
            refused = await http.options(path, headers=ASKED)
            problem(refused, 404)
            assert "WebHook-Allowed-Origin" not in refused.headers
        await api.http.delete("/v1/hooks/pay")
        problem(await http.options("/v1/hooks/pay", headers=ASKED), 404)


async def test_who_does_not_ask_for_anything_is_granted_nothing(api: Served) -> None:
    async with api.client(None) as http:
        answer = await http.options("/v1/events")
        assert answer.status_code == 200
        assert "WebHook-Allowed-Origin" not in answer.headers
        for origin in ("", "two words", "x" * 254, "caf\u00e9.example"):
            headers = {"WebHook-Request-Origin": origin.encode()}
            refused = await http.options("/v1/events", headers=headers)
            problem(refused, 400)
            assert "WebHook-Allowed-Origin" not in refused.headers
        for path in ("/v1/tasks", "/v1/events/x"):
            problem(await http.options(path, headers=ASKED), 401)
