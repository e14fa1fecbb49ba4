"""A small web service for tasks to call: it answers what it is told to, and remembers what it was asked."""

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """One request; header names are in lower case, `body` is its JSON (None without one)."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Service:
    """Answers each request with the next of `answers` (status, JSON), and with 200 and `always` when there
    is none left. While `closed` is set, requests wait."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: list[tuple[int, Any]] = []
        self.always: Any = {"ok": True}
        self._open = threading.Event()
        self._open.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        """Let requests wait from now on."""
        self._open.clear()

    def open(self) -> None:
        """Answer them again."""
        self._open.set()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, json.loads(raw) if raw else None)
                service.asked.append(asked)
                service._open.wait(30)
                status, said = service.answers.pop(0) if service.answers else (200, service.always)
                body = json.dumps(said).encode()
                with suppress(ConnectionError):  # whoever asked may have given up waiting
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
