"""The HTTP client of the commands: where the API is, with which key, and what its errors mean."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from ordinaut.domain.errors import Fault, OrdinautError
from ordinaut.runtime.embedded import read_dev_json

DEFAULT_URL = "http://127.0.0.1:8080"
KEY_FILE = "admin-key"
POSITION = "Ordinaut-Position"
WAIT = "Ordinaut-Wait"


class Unreachable(OrdinautError):
    """Nobody answers where the API should be."""

    slug = "unreachable"
    title = "The server does not answer"


class Refused(OrdinautError):
    """The API answered with an error; `code` is its HTTP status."""

    def __init__(self, code: int, title: str, message: str, faults: list[Fault]) -> None:
        super().__init__(message, faults)
        self.code = code
        self.title = title


def data_dir() -> Path:
    """The directory of the `ordinaut dev` that commands talk to."""
    return Path(os.environ.get("ORDINAUT_DATA_DIR") or ".ordinaut")


def target() -> tuple[str, str | None]:
    """The API's URL and the key: from ORDINAUT_URL and ORDINAUT_API_KEY, else what `ordinaut dev` left
    in its data directory, else this machine's port 8080 and no key."""
    directory = data_dir()
    url = os.environ.get("ORDINAUT_URL") or (read_dev_json(directory) or {}).get("api") or DEFAULT_URL
    key = os.environ.get("ORDINAUT_API_KEY")
    if not key:
        with contextlib.suppress(OSError):
            key = (directory / KEY_FILE).read_text().strip()
    return url, key or None


class Client:
    """A session with the API. Once something was written, reads wait until they can show it."""

    def __init__(self, url: str | None = None, key: str | None = None, timeout: float = 30.0) -> None:
        found_url, found_key = target()
        self.url = (url or found_url).rstrip("/")
        key = key or found_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._has_key = bool(key)
        self._position: str | None = None
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """GET a JSON document; query values that are None are left out."""
        headers = {WAIT: self._position} if self._position else {}
        return self._ask("GET", path, query=query, headers=headers)

    def post(self, path: str, body: Any = None, *, changes: bool = True) -> Any:
        """POST, under an Idempotency-Key of its own where it `changes` something."""
        headers = {"Idempotency-Key": secrets.token_hex(16)} if changes else {}
        return self._ask("POST", path, body={} if body is None else body, headers=headers)

    def put(self, path: str, body: Any, **query: Any) -> Any:
        """PUT a JSON document."""
        return self._ask("PUT", path, body=body, query=query)

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE."""
        return self._ask("DELETE", path, query=query)

    def items(self, path: str, limit: int | None, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of a list, page after page, at most `limit` of them (None: all)."""
        after: str | None = None
        left = limit
        while left is None or left > 0:
            size = 100 if left is None else min(100, left)
            page = self.get(path, limit=size, after=after, **query)
            yield from page["items"]
            after = page["next"]
            if left is not None:
                left -= len(page["items"])
            if after is None:
                return

    def live(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The events of a server-sent stream (https://html.spec.whatwg.org/multipage/server-sent-events.html),
        each one's data as JSON, until the server ends it."""
        wanted = _given(query)
        try:
            with self._http.stream(
                "GET", path, params=wanted, timeout=httpx.Timeout(30, read=None)
            ) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise self._refusal(answer)
                data: list[str] = []
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        data.append(line[5:].removeprefix(" "))
                    elif not line and data:
                        yield json.loads("\n".join(data))
                        data = []
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        try:
            answer = self._http.request(
                method,
                path,
                params=_given(query or {}),
                headers=dict(headers or {}),
                **({} if body is None else {"json": body}),
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if answer.status_code >= 400:
            raise self._refusal(answer)
        self._position = answer.headers.get(POSITION, self._position) if method != "GET" else self._position
        return answer.json() if answer.content else None

    def _unreachable(self, error: Exception) -> Unreachable:
        why = "" if isinstance(error, httpx.ConnectError) else f" ({error or type(error).__name__})"
        return Unreachable(
            f"no answer from {self.url}{why}: start `ordinaut dev`, or set ORDINAUT_URL to where the API is"
        )

    def _refusal(self, answer: httpx.Response) -> Refused:
        try:
            problem = answer.json()
            assert isinstance(problem, dict)
        except (ValueError, AssertionError):
            return Refused(answer.status_code, "", f"{self.url} answered {answer.status_code}", [])
        errors = problem.get("errors") or []
        faults = [
            Fault(each.get("pointer", ""), each.get("detail", ""), each.get("hint", ""))
            for each in errors
            if "pointer" in each  # what is wrong with a header stands in the message
        ]
        title = str(problem.get("title") or f"HTTP {answer.status_code}")
        message = str(problem.get("detail") or title)
        if asked := [each for each in errors if "parameter" in each]:
            # What the API calls a query parameter was an option of the command.
            named = [Fault(f"--{each['parameter']}", each["detail"], each.get("hint", "")) for each in asked]
            message = "; ".join(str(fault) for fault in named)
        if answer.status_code == 401 and not self._has_key:
            message = f"{self.url} wants a key: set ORDINAUT_API_KEY"
        return Refused(answer.status_code, title, message, faults)


def segment(text: str) -> str:
    """A name or id as one segment of a URL's path."""
    return quote(text, safe="")


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
