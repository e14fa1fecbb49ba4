"""Is the container's `ordinaut serve ROLE…` well? Exit code 0 is yes; 1 is no, with the reason on stdout.

With the role `api`: whether /health/ready answers 200, within 5 seconds. For the other roles, which
listen on nothing: whether the process has an open connection to PostgreSQL. It shows that the role is
started and not shut out of its database; a database that went silent is only seen when TCP gives up.

It uses the standard library alone, so that a check every few seconds costs next to nothing, and reads
/proc, so it runs on Linux and inside the container.
"""

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

DEFAULT_DATABASE = "postgresql://postgres@localhost:5432/ordinaut"
DEFAULT_PORT = "8080"
_ESTABLISHED = "01"

Address = IPv4Address | IPv6Address


def roles_of(command: Sequence[str]) -> list[str] | None:
    """The roles in the command line of `ordinaut serve ROLE…`; [] means all, None: another command."""
    if "serve" not in command:
        return None
    return list(command[list(command).index("serve") + 1 :])


def database_port(url: str) -> tuple[str, int] | None:
    """Host and port of a PostgreSQL URL; None when it names a Unix socket."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    host = asked.get("host", [parts.hostname or "localhost"])[0]
    if host.startswith("/"):
        return None
    return host, int(asked.get("port", [str(parts.port or 5432)])[0])


def connections(table: str) -> Iterator[tuple[Address, int]]:
    """The other ends of the established connections in the text of /proc/net/tcp or tcp6."""
    for line in table.splitlines()[1:]:
        _, _, remote, state = line.split()[:4]
        if state == _ESTABLISHED:
            packed, _, port = remote.partition(":")
            yield _address(packed), int(port, 16)


def _address(packed: str) -> Address:
    # The kernel prints each 32 bits as one number in the machine's own byte order.
    words = [int(packed[start : start + 8], 16) for start in range(0, len(packed), 8)]
    address = ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def trouble_with_api(port: str) -> str | None:
    """What keeps the API from being ready, as it says itself; None when nothing does."""
    url = f"http://127.0.0.1:{port}/health/ready"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return None if answer.status == 200 else f"{url} answered {answer.status}"
    except urllib.error.HTTPError as error:
        return f"{url} answered {error.code}: {error.read(2000).decode(errors='replace')}"
    except OSError as error:
        return f"{url} does not answer: {error}"


def trouble_with_database(url: str) -> str | None:
    """Says so when no connection from here to PostgreSQL is open; None when one is."""
    where = database_port(url)
    if where is None:
        return None
    host, port = where
    try:
        known = {ip_address(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        return f"the database's host {host} is not known: {error}"
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    open_now = {end for table in tables if table.exists() for end in connections(table.read_text())}
    if any((address, port) in open_now for address in known):
        return None
    return f"no connection to PostgreSQL at {host}:{port} is open"


def main() -> int:
    """Check the process with the id 1, which is what the container runs."""
    command = Path("/proc/1/cmdline").read_text().rstrip("\0").split("\0")
    roles = roles_of(command)
    if roles is None:
        return 0
    if not roles or "api" in roles:
        trouble = trouble_with_api(os.environ.get("ORDINAUT_PORT") or DEFAULT_PORT)
    else:
        trouble = trouble_with_database(os.environ.get("ORDINAUT_DATABASE_URL") or DEFAULT_DATABASE)
    if trouble:
        print(trouble)  # noqa: T201 (`docker inspect` shows what a health check prints)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
