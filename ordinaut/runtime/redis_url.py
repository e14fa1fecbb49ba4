"""ORDINAUT_REDIS_URL in its forms: one server, a master that Sentinel names, a cluster.

    redis://[user:password@]host[:port][/database]
    redis+sentinel://[user:password@]host[:port],…/service[/database]
    redis+cluster://[user:password@]host[:port],…

`rediss` in place of `redis` is TLS, to the sentinels too. What follows `?` are redis-py's options for
connections, `ssl_ca_certs` (a file) first of all; `sentinel_username` and `sentinel_password` are for
the sentinels alone.
"""

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, SSLConnection
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

Kind = Literal["server", "sentinel", "cluster"]

SENTINEL_PORT = 26379
SERVER_PORT = 6379

_FORMS = "redis://, redis+sentinel:// and redis+cluster://, or the same with rediss (TLS), or unix://"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a URL says. `hosts`: the sentinels, or the nodes of the cluster that are asked first. `options`
    are keywords for redis-py's connections, `ssl` whether they are TLS; `sentinel_options` those for the
    sentinels."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    ssl: bool = False
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)


def parse_redis_url(url: str) -> RedisAddress:
    """Raises ValueError with a sentence that holds nothing of the URL but its scheme."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("this is no URL") from None
    base, _, form = parts.scheme.partition("+")
    if base not in ("redis", "rediss", "unix") or (form and base == "unix"):
        raise ValueError(f"it must begin with one of {_FORMS}, not with {parts.scheme or 'nothing'}://")
    if not form:
        options, database = _options(url), parts.path.strip("/")
        if base != "unix" and database and not database.isdigit():
            raise ValueError("what follows the host must be the number of a database")
        return RedisAddress("server", ssl=base == "rediss", options=_checked(options))
    if form not in ("sentinel", "cluster"):
        raise ValueError(f"it must begin with one of {_FORMS}, not with {parts.scheme}://")
    user, at, hosts = parts.netloc.rpartition("@")
    port = SENTINEL_PORT if form == "sentinel" else SERVER_PORT
    addresses = tuple(_host(each, port) for each in hosts.split(","))
    service, _, database = parts.path.strip("/").partition("/")
    if form == "cluster" and (service or database):
        service, database = "", service
        if database != "0":
            raise ValueError("a cluster has no database numbers: nothing may follow the hosts")
    if form == "sentinel" and not service:
        raise ValueError(
            "the name of the service must follow the sentinels: redis+sentinel://host:26379/name"
        )
    if database and not database.isdigit():
        raise ValueError("what follows the service must be the number of a database")
    query = f"?{parts.query}" if parts.query else ""
    options = _options(f"{base}://{user}{at}host/{database}{query}")
    for name in ("host", "connection_class"):
        options.pop(name, None)
    encrypted = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinel_options = {
        name: value
        for name in ("username", "password")
        if (value := options.pop(f"sentinel_{name}", None)) is not None
    }
    _checked({**options, "connection_class": SSLConnection} if base == "rediss" else options)
    kind: Kind = "sentinel" if form == "sentinel" else "cluster"
    return RedisAddress(
        kind, addresses, service, base == "rediss", options, {**encrypted, **sentinel_options}
    )


def _options(url: str) -> dict[str, Any]:
    try:
        return dict(parse_url(url))
    except ValueError:
        # What redis-py says may hold a piece of a password that is not encoded.
        raise ValueError(
            "the port must be a number, options of their types, what has a meaning in URLs percent-encoded"
        ) from None


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, when a connection can be made with them. Connecting is another matter."""
    try:
        BlockingConnectionPool(**options).make_connection()  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RedisError):
        # Not by name: in a password that is not encoded a piece may stand where options do.
        raise ValueError(
            "what follows ? must be options of redis-py's connections, such as ssl_ca_certs with rediss://"
        ) from None
    return options


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "localhost", parts.port or port
    except ValueError:
        raise ValueError("each host must be written host or host:port, with commas between them") from None
