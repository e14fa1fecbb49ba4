"""What ORDINAUT_REDIS_URL may look like."""

import pytest

from ordinaut.domain.errors import Invalid
from ordinaut.runtime.logging import without_password
from ordinaut.runtime.redis_url import parse_redis_url
from ordinaut.runtime.settings import load_settings


def test_a_server_is_named_as_redis_py_names_it() -> None:
    address = parse_redis_url("rediss://u:p%40ss@db.example:7000/3?ssl_ca_certs=/ca.pem")
    assert (address.kind, address.ssl) == ("server", True)
    wanted = {"username": "u", "password": "p@ss", "host": "db.example", "port": 7000, "db": 3}
    assert wanted.items() <= address.options.items()
    assert address.options["ssl_ca_certs"] == "/ca.pem"


def test_sentinels_come_before_the_service_and_may_have_a_password_of_their_own() -> None:
    address = parse_redis_url(
        "redis+sentinel://u:secret@one:1,[::1]:2,three/orders/4?sentinel_username=s&sentinel_password=other"
    )
    assert (address.kind, address.service, address.ssl) == ("sentinel", "orders", False)
    assert address.hosts == (("one", 1), ("::1", 2), ("three", 26379))
    assert address.options == {"username": "u", "password": "secret", "db": 4}
    assert address.sentinel_options == {"username": "s", "password": "other"}


def test_tls_is_spoken_with_sentinels_too() -> None:
    address = parse_redis_url("rediss+sentinel://one/orders?ssl_ca_certs=/ca.pem")
    assert address.ssl
    assert address.options == address.sentinel_options == {"ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize("tail", ["", "/", "/0"])
def test_a_cluster_is_some_of_its_nodes(tail: str) -> None:
    address = parse_redis_url(f"redis+cluster://:secret@one:1,two{tail}")
    assert (address.kind, address.hosts) == ("cluster", (("one", 1), ("two", 6379)))
    assert address.options.items() <= {"password": "secret", "db": 0}.items()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "must begin with one of redis://"),
        ("http://u:hidden@one", "not with http://"),
        ("redis+ring://u:hidden@one", r"not with redis\+ring://"),
        ("redis+sentinel://u:hidden@one", "name of the service must follow"),
        ("redis+sentinel://u:hidden@one/orders/two", "number of a database"),
        ("redis+cluster://u:hidden@one/3", "a cluster has no database numbers"),
        ("redis+cluster://u:hidden@one:two", "host or host:port"),
        ("redis://u:hidden@one:two", "the port must be a number"),
        ("redis://u:hidden/@one", "percent-encoded"),
        ("redis://u:hidden@one/two", "number of a database"),
        ("redis://u:hidden@one/0?foo=1", "options of redis-py's connections"),
        ("redis://u:hidden@one/0?ssl_ca_certs=/ca.pem", "with rediss://"),
        ("redis+sentinel://u:hidden@one/orders?foo=1", "options of redis-py's connections"),
        ("redis+cluster://u:hidden@one?hidden=1", "options of redis-py's connections"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason_and_without_the_password(url: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        load_settings(redis_url=url)
    assert "ORDINAUT_REDIS_URL" in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://one/0?socket_timeout=3&max_connections=5&client_name=x",
        "rediss://one?ssl_cert_reqs=none&ssl_check_hostname=false&ssl_certfile=/a&ssl_keyfile=/b",
        "rediss+cluster://one?ssl_ca_certs=/ca.pem",
        "redis+sentinel://one/orders?sentinel_password=x&socket_keepalive=true",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_options_of_connections_are_taken(url: str) -> None:
    assert load_settings(redis_url=url).redis_url == url


def test_the_sentinels_password_is_not_shown_either() -> None:
    shown = without_password("redis+sentinel://u:hidden@one,two/orders?sentinel_password=hidden&db=1")
    assert shown == "redis+sentinel://u:***@one,two/orders?sentinel_password=***&db=1"
