"""The http tools against a real server."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import structlog

from ordinaut import __version__
from ordinaut.work.tools import http
from ordinaut.work.tools.base import StepContext
from ordinaut.work.tools.call import call_tool
from ordinaut.work.tools.errors import ToolError, ToolFault


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request], "bytes | None"]


@dataclass
class Server:
    """An HTTP/1.1 server on a port of its own; `answer` makes the raw bytes, None leaves it hanging."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answer: Answer = lambda request: reply(200)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8")
            first, *lines = head.strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(method, target, headers, body)
            self.requests.append(request)
            raw = self.answer(request)
            if raw is None:
                await reader.read()
            else:
                writer.write(raw)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def reply(status: int, body: bytes = b"", content_type: str = "", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}", "Connection: close"]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Services:
    http: httpx.AsyncClient


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield made
    listening.close()


Send = Callable[..., Awaitable[Any]]


@pytest.fixture
async def send() -> AsyncIterator[Send]:
    async with http.new_client() as client:

        async def call(tool: Any, given: dict[str, Any], timeout: float = 10) -> Any:
            services: Any = Services(client)
            log = structlog.get_logger()
            ctx = StepContext(
                "r1", "t", "default", "s1", 2, "r1/s1", "c", "worker:w", "run-r1/2", 0, False, services, log
            )
            return await call_tool(tool, given, ctx, timeout)

        yield call


async def failure(send: Send, tool: Any, given: dict[str, Any], timeout: float = 10) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await send(tool, given, timeout)
    return caught.value


async def test_json_arrives_parsed_and_header_names_in_lower_case(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(200, b'{"n": 1}', "application/json; charset=utf-8", X_Told="Yes")
    output = await send(http.GET, {"url": server.url + "/a"})
    assert (output["status"], output["body"], output["headers"]["x-told"]) == (200, {"n": 1}, "Yes")
    assert "encoding" not in output


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"plain", "text/plain", "plain"),
        (b"plain", "", "plain"),
        (b"[1]", "application/problem+json", [1]),
        (b"[1]", "text/plain", "[1]"),
        (b"", "application/json", None),
        (b"OK", "application/json", "OK"),
        (b"NaN", "application/json", "NaN"),
        ("\ufeff{}".encode(), "application/json", {}),
        ("grün".encode("latin-1"), "text/plain; charset=iso-8859-1", "grün"),
        ("grün".encode(), "text/plain; charset=no-such", "grün"),
    ],
)
async def test_a_body_is_what_the_server_says_it_is(
    server: Server, send: Send, body: bytes, content_type: str, expected: Any
) -> None:
    server.answer = lambda request: reply(200, body, content_type)
    assert (await send(http.GET, {"url": server.url}))["body"] == expected


@pytest.mark.parametrize("body", [b"\x89PNG\xff\xfe", b"a\0b"])
async def test_what_is_not_text_comes_as_base64(server: Server, send: Send, body: bytes) -> None:
    server.answer = lambda request: reply(200, body, "image/png")
    output = await send(http.GET, {"url": server.url})
    assert output["encoding"] == "base64"
    assert base64.b64decode(output["body"]) == body


async def test_every_request_carries_the_idempotency_key(server: Server, send: Send) -> None:
    await send(http.POST, {"url": server.url, "json": {"a": [1, "ü"]}})
    request = server.requests[0]
    assert request.method == "POST"
    assert json.loads(request.body) == {"a": [1, "ü"]}
    assert request.headers["idempotency-key"] == "r1/s1"
    assert request.headers["user-agent"] == f"ordinaut/{__version__}"
    assert request.headers["content-type"] == "application/json"


async def test_headers_a_step_gives_win(server: Server, send: Send) -> None:
    headers = {"Idempotency-key": "mine", "USER-AGENT": "me", "content-Type": "text/csv", "X-N": 5}
    await send(http.REQUEST, {"method": "PUT", "url": server.url, "body": "a,b", "headers": headers})
    request = server.requests[0]
    assert (request.method, request.body) == ("PUT", b"a,b")
    assert request.headers["idempotency-key"] == "mine"
    assert request.headers["user-agent"] == "me"
    assert request.headers["content-type"] == "text/csv"
    assert request.headers["x-n"] == "5"


async def test_a_query_is_added_to_the_one_in_the_url(server: Server, send: Send) -> None:
    query = {"q": "a b&c", "n": 3, "on": True, "many": ["x", "y"]}
    await send(http.GET, {"url": server.url + "/find?lang=en", "query": query})
    assert server.requests[0].target == "/find?lang=en&q=a+b%26c&n=3&on=true&many=x&many=y"


async def test_credentials_in_the_url_become_basic_authentication(server: Server, send: Send) -> None:
    await send(http.GET, {"url": server.url.replace("//", "//me:pass@")})
    assert server.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"me:pass").decode()


@pytest.mark.parametrize("status", [200, 201, 204, 302, 304])
async def test_two_and_three_hundreds_succeed(server: Server, send: Send, status: int) -> None:
    server.answer = lambda request: reply(status, Location="/elsewhere")
    assert (await send(http.GET, {"url": server.url}))["status"] == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(400, False), (401, False), (404, False), (409, False), (422, False), (501, True)]
    + [(status, True) for status in (408, 425, 429, 500, 502, 503, 504)],
)
async def test_other_statuses_fail_and_say_whether_to_try_again(
    server: Server, send: Send, status: int, retryable: bool
) -> None:
    server.answer = lambda request: reply(status, b"because", "text/plain")
    error = await failure(send, http.GET, {"url": server.url + "/secret-path?token=x"})
    assert error.retryable is retryable
    assert error.message == f"GET {server.url} answered {status} Told"
    assert error.details == {"status": status, "body": "because"}


async def test_expected_statuses_replace_the_usual_ones(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(404)
    assert (await send(http.GET, {"url": server.url, "expect_status": [404, 200]}))["status"] == 404
    server.answer = lambda request: reply(201)
    error = await failure(send, http.GET, {"url": server.url, "expect_status": [404, 200]})
    assert (error.details["status"], error.retryable) == (201, False)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"Retry_After": "999999"}, 86_400.0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-1"}, None),
        ({}, None),
        (
            {"Retry_After": "Wed, 01 Jan 2031 00:01:30 GMT", "Date": "Wed, 01 Jan 2031 00:00:00 GMT"},
            90.0,
        ),
        ({"Retry_After": "Wed, 01 Jan 2031 00:00:00 GMT", "Date": "Thu, 02 Jan 2031 00:00:00 GMT"}, 0.0),
        ({"Retry_After": "Wed, 01 Jan 2031 00:00:00 GMT"}, None),
    ],
)
async def test_retry_after_is_passed_on_in_seconds(
    server: Server, send: Send, headers: dict[str, str], seconds: float | None
) -> None:
    server.answer = lambda request: reply(429, b"", "", **headers)
    assert (await failure(send, http.GET, {"url": server.url})).retry_after == seconds


async def test_redirects_are_followed_when_asked(server: Server, send: Send) -> None:
    server.answer = lambda request: (
        reply(307, Location="/new") if request.target == "/old" else reply(200, b"here")
    )
    output = await send(http.POST, {"url": server.url + "/old", "json": 1, "follow_redirects": True})
    assert output["body"] == "here"
    assert [request.body for request in server.requests] == [b"1", b"1"]


async def test_a_redirect_without_end_fails(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(302, Location="/again")
    error = await failure(send, http.GET, {"url": server.url, "follow_redirects": True})
    assert (error.retryable, error.details) == (False, {"kind": "TooManyRedirects"})


async def test_a_redirect_to_another_scheme_fails(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(302, Location="file:///etc/passwd")
    error = await failure(send, http.GET, {"url": server.url, "follow_redirects": True})
    assert error.retryable is False


async def test_a_server_that_hangs_is_given_up_on_and_may_be_tried_again(server: Server, send: Send) -> None:
    server.answer = lambda request: None
    error = await failure(send, http.GET, {"url": server.url, "timeout": 0.05})
    assert (error.message, error.retryable) == (f"GET {server.url} took longer than 0.05 s", True)
    error = await failure(send, http.GET, {"url": server.url, "timeout": "50ms"})
    assert (error.message, error.retryable) == (f"GET {server.url} took longer than 0.05 s", True)
    error = await failure(send, http.GET, {"url": server.url}, timeout=0.05)
    assert (error.message, error.retryable) == ("http.get took longer than 0.05 s", True)


async def test_a_server_that_drops_the_line_may_be_tried_again(server: Server, send: Send) -> None:
    server.answer = lambda request: b""
    assert (await failure(send, http.GET, {"url": server.url})).retryable is True
    server.answer = lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    assert (await failure(send, http.GET, {"url": server.url})).retryable is True


async def test_a_refused_connection_may_be_tried_again(send: Send) -> None:
    closed = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    error = await failure(send, http.GET, {"url": f"http://127.0.0.1:{port}"})
    assert (error.retryable, error.details) == (True, {"kind": "ConnectError"})


async def test_a_timeout_that_is_no_duration_is_told_with_its_place(send: Send) -> None:
    error = await failure(send, http.GET, {"url": "http://127.0.0.1", "timeout": "soon"})
    assert isinstance(error, ToolFault)
    assert (error.pointer, error.retryable) == ("/timeout", False)


@pytest.mark.parametrize("url", ["http://", "http:///path", "http://a:notaport/", "http://[::1"])
async def test_what_is_not_a_url_is_told_with_its_place(send: Send, url: str) -> None:
    error = await failure(send, http.GET, {"url": url})
    assert isinstance(error, ToolFault)
    assert error.pointer == "/url"


async def test_an_answer_that_is_too_large_fails(
    server: Server, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_LIMIT", 1000)
    server.answer = lambda request: reply(200, b"x" * 1000)
    assert len((await send(http.GET, {"url": server.url}))["body"]) == 1000
    server.answer = lambda request: reply(200, b"x" * 1001)
    error = await failure(send, http.GET, {"url": server.url})
    assert (error.message, error.retryable) == (f"GET {server.url} answered with more than 1000 bytes", False)


async def test_an_error_shows_nothing_of_the_headers(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(403, f"no: {request.headers['authorization']}".encode())
    headers = {"Authorization": "Bearer hunter2-hunter2", "X-Api-Key": "k-123456"}
    error = await failure(send, http.GET, {"url": server.url, "headers": headers})
    assert "hunter2" not in json.dumps(error.as_json())
    assert error.details["body"] == "no: ***"


async def test_an_error_shows_nothing_of_credentials_in_the_url(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(403, f"no: {request.headers['authorization']}".encode())
    error = await failure(send, http.GET, {"url": server.url.replace("//", "//me:hunter2@")})
    assert error.message == f"GET {server.url} answered 403 Told"
    assert error.details["body"] == "no: ***"


async def test_a_cookie_stays_out_of_the_log_and_out_of_the_next_request(server: Server, send: Send) -> None:
    server.answer = lambda request: reply(200, Set_Cookie="session=hunter2; Path=/")
    output = await send(http.GET, {"url": server.url})
    await send(http.GET, {"url": server.url})
    assert "hunter2" not in json.dumps(output)
    assert "cookie" not in server.requests[1].headers
