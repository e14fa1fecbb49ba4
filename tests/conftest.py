"""What every test may ask for: a database of its own, a Redis of its own, a seed, real processes."""

import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest
import redis

from tests.support.processes import RoleProcess
from tests.support.servers import Servers, blocking, execute, make_template, run_servers, with_database

hypothesis.settings.register_profile(
    "ordinaut",
    deadline=None,  # a busy machine is not a failure
    derandomize=False,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinaut"))

# A shell that starts the tests in the background leaves SIGINT ignored, and so would what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--testcontainers",
        action="store_true",
        help="take PostgreSQL and Redis from containers (needs a Docker engine) instead of embedded ones",
    )


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The run's two servers; tests ask for `database_url` and `redis_url` instead."""
    with run_servers(bool(request.config.getoption("--testcontainers"))) as running:
        yield running


@pytest.fixture(scope="session")
def template_database(servers: Servers) -> Iterator[str]:
    """Name of a migrated database nobody is connected to."""
    name = f"ordinaut_test_{os.getpid()}_template"
    drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
    blocking(execute(servers.database_url, drop))
    blocking(make_template(servers.database_url, name))
    yield name
    blocking(execute(servers.database_url, drop))


@pytest.fixture
def database_url(servers: Servers, template_database: str) -> Iterator[str]:
    """A migrated, empty database for this test alone."""
    name = f"ordinaut_test_{os.getpid()}_{next(_numbers)}"
    blocking(execute(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"'))
    yield with_database(servers.database_url, name)
    blocking(execute(servers.database_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture
def bare_database_url(servers: Servers) -> Iterator[str]:
    """A database with nothing in it, for this test alone."""
    name = f"ordinaut_test_{os.getpid()}_{next(_numbers)}_bare"
    blocking(execute(servers.database_url, f'CREATE DATABASE "{name}" TEMPLATE template0'))
    yield with_database(servers.database_url, name)
    blocking(execute(servers.database_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture
def redis_url(servers: Servers) -> Iterator[str]:
    """An empty logical Redis database for this test alone."""
    with redis.Redis.from_url(servers.redis_url) as client:
        databases = int(client.config_get("databases")["databases"])
    # Processes that share one server take turns with its databases.
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = (next(_numbers) * processes + process) % (databases - databases % processes)
    url = with_database(servers.redis_url, str(number))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def seed() -> int:
    """A seed for this test's randomness; a failing test shows it, ORDINAUT_TEST_SEED repeats it."""
    chosen = int(os.environ.get("ORDINAUT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"ORDINAUT_TEST_SEED={chosen}")
    return chosen


StartRole = Callable[..., RoleProcess]


@pytest.fixture
def start_role(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[StartRole]:
    """`start_role("worker", "clock", env={…})`: a ready `ordinaut serve worker clock` on this test's servers.

    What still runs at the end of the test is killed.
    """
    started: list[RoleProcess] = []

    def start(
        *roles: str,
        env: Mapping[str, str] | None = None,
        ready: bool = True,
        kind: type[RoleProcess] = RoleProcess,
    ) -> RoleProcess:
        urls = {"ORDINAUT_DATABASE_URL": database_url, "ORDINAUT_REDIS_URL": redis_url}
        output = tmp_path / f"{'-'.join(roles)}-{len(started)}.log"
        process = kind(roles, {**urls, **(env or {})}, output)
        started.append(process)
        process.start()
        return process.wait_ready() if ready else process

    yield start
    for process in started:
        process.kill()
