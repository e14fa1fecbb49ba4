"""The servers that `ordinaut dev` brings: whatever happened before, they start, and their data is there."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis

from ordinaut.runtime.embedded import (
    DirectoryInUse,
    DirectoryUnusable,
    EmbeddedServers,
    read_dev_json,
    write_dev_json,
)
from ordinaut.runtime.embedded_process import ServerFailed
from tests.support.processes import ROOT
from tests.support.servers import blocking, execute

OWNER = """
import sys, time
from ordinaut.runtime.embedded import EmbeddedServers
with EmbeddedServers(sys.argv[1], fsync=False) as servers:
    print(servers.postgres.pid, servers.redis.pid, servers.redis.port, flush=True)
    time.sleep(600)
"""


class Owner:
    """Another process that owns the directory, up and running."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(directory)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.postgres_pid, self.valkey_pid, self.port = map(int, self.process.stdout.readline().split())

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def living(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def fetch(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def put_something(servers: EmbeddedServers) -> None:
    blocking(execute(servers.database_url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)"))
    with redis.Redis.from_url(servers.redis_url) as client:
        client.xadd("orders", {"data": "7"})


def assert_it_is_there(servers: EmbeddedServers) -> None:
    assert blocking(fetch(servers.database_url, "SELECT n FROM kept")) == 7
    with redis.Redis.from_url(servers.redis_url) as client:
        assert client.xlen("orders") == 1


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A data directory with something in it, nobody running."""
    # Starting in it again stops whatever a test left running there.
    with EmbeddedServers(tmp_path / "data", fsync=False) as servers:
        put_something(servers)
    yield tmp_path / "data"
    with EmbeddedServers(tmp_path / "data", fsync=False):
        pass


def test_data_survives_a_stop_and_a_start_and_redis_keeps_its_port(directory: Path) -> None:
    with EmbeddedServers(directory, fsync=False) as servers:
        assert_it_is_there(servers)
        assert blocking(fetch(servers.database_url, "SHOW server_version_num")) >= "180000"
        first = servers.redis_url
    with EmbeddedServers(directory, fsync=False) as servers:
        assert servers.redis_url == first


def test_nothing_runs_any_more_after_a_stop(directory: Path) -> None:
    with EmbeddedServers(directory, fsync=False) as servers:
        assert servers.postgres is not None and servers.redis is not None
        pids = [servers.postgres.pid or 0, servers.redis.pid or 0]
        write_dev_json(directory, api="http://x", database_url="a", redis_url="b")
    assert not any(living(pid) for pid in pids)
    assert read_dev_json(directory) is None


def test_after_kill_9_of_the_owner_the_next_start_replaces_its_servers_and_keeps_the_data(
    directory: Path,
) -> None:
    owner = Owner(directory)
    owner.end(signal.SIGKILL)
    assert living(owner.postgres_pid) and living(owner.valkey_pid)
    with EmbeddedServers(directory, fsync=False) as servers:
        assert_it_is_there(servers)
        assert not living(owner.postgres_pid) and not living(owner.valkey_pid)
        assert servers.redis is not None and servers.redis.port == owner.port


def test_after_kill_9_of_owner_and_servers_the_next_start_recovers(directory: Path) -> None:
    owner = Owner(directory)
    for pid in (owner.process.pid, owner.postgres_pid, owner.valkey_pid):
        os.kill(pid, signal.SIGKILL)
    owner.process.wait(60)
    with EmbeddedServers(directory, fsync=False) as servers:
        assert_it_is_there(servers)


def test_sigterm_to_the_owner_stops_its_servers(directory: Path) -> None:
    owner = Owner(directory)
    assert owner.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert not living(owner.postgres_pid) and not living(owner.valkey_pid)


def test_ctrl_c_reaches_the_owner_and_not_its_servers(directory: Path) -> None:
    owner = Owner(directory)
    own_session = os.getsid(owner.process.pid)
    assert os.getsid(owner.postgres_pid) != own_session and os.getsid(owner.valkey_pid) != own_session
    owner.end(signal.SIGINT)
    assert not living(owner.postgres_pid) and not living(owner.valkey_pid)


def test_a_second_owner_gets_one_sentence_that_names_the_first(directory: Path) -> None:
    with EmbeddedServers(directory, fsync=False) as servers:
        write_dev_json(directory, api="http://127.0.0.1:8080", database_url="a", redis_url="b")
        with pytest.raises(DirectoryInUse) as refused:
            EmbeddedServers(directory).start()
        assert str(directory) in refused.value.message
        assert f"process {os.getpid()}, API at http://127.0.0.1:8080" in refused.value.message
        assert "\n" not in refused.value.message
        assert_it_is_there(servers)


def test_a_stale_lock_file_is_no_obstacle(directory: Path) -> None:
    (directory / "lock").write_text("1\n")
    (directory / "dev.json").write_text('{"api": "http://gone"}')
    with EmbeddedServers(directory, fsync=False) as servers:
        assert_it_is_there(servers)
        assert (directory / "lock").read_text() == f"{os.getpid()}\n"
        assert read_dev_json(directory) is None


@pytest.mark.parametrize("lines", [1, 4, 8])
def test_a_postmaster_pid_with_somebody_elses_process_id_is_not_believed(directory: Path, lines: int) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        content = [
            str(other.pid),
            str(directory / "pg"),
            "1700000000",
            "5432",
            str(directory / "pg"),
            "",
            "1 2",
            "ready",
        ]
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (directory / "pg" / name).write_text("\n".join(content[:lines]) + "\n")
        with EmbeddedServers(directory, fsync=False) as servers:
            assert_it_is_there(servers)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_data_directory_with_a_long_and_strange_path_works(tmp_path: Path) -> None:
    strange = tmp_path / ("long " * 20) / "a,b@ü'"
    with EmbeddedServers(strange, fsync=False) as servers:
        put_something(servers)
    with EmbeddedServers(strange, fsync=False) as servers:
        assert_it_is_there(servers)


def test_a_torn_append_only_file_does_not_keep_redis_from_starting(directory: Path) -> None:
    newest = max((directory / "valkey" / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.name)
    with newest.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\n")
    with EmbeddedServers(directory, fsync=False) as servers:
        assert_it_is_there(servers)


def test_redis_asks_for_the_last_port_but_takes_another_when_it_is_taken(directory: Path) -> None:
    with EmbeddedServers(directory, fsync=False) as servers:
        assert servers.redis is not None
        port = servers.redis.port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with EmbeddedServers(directory, fsync=False) as servers:
            assert servers.redis is not None and servers.redis.port != port
            assert_it_is_there(servers)


def test_a_data_directory_that_cannot_be_made_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match="cannot be used as a data directory"):
        EmbeddedServers(tmp_path / "file" / "data").start()


def test_somebody_elses_files_in_the_place_of_the_database_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "data" / "pg" / "novel.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("Chapter 1")
    with pytest.raises(ServerFailed, match="is not empty, but no data directory of PostgreSQL either"):
        EmbeddedServers(tmp_path / "data", redis_url="redis://elsewhere").start()
    assert mine.read_text() == "Chapter 1"


def test_only_what_is_not_given_is_started(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path / "data", database_url="postgresql://elsewhere/db") as servers:
        assert servers.postgres is None and servers.redis is not None
        assert servers.database_url == "postgresql://elsewhere/db"


def test_ephemeral_servers_leave_nothing_and_sweep_up_after_killed_ones() -> None:
    with EmbeddedServers(ephemeral=True, fsync=False, redis_url="redis://elsewhere") as servers:
        place = servers.data_dir
        assert place.exists()
    assert not place.exists()
    place.mkdir(mode=0o700)
    (place / "lock").write_text("1\n")
    with EmbeddedServers(
        ephemeral=True, database_url="postgresql://elsewhere", redis_url="redis://elsewhere"
    ):
        assert not place.exists()


def test_dev_json_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = write_dev_json(
        tmp_path, api="http://127.0.0.1:1", database_url="postgresql://a", redis_url="redis://b"
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_dev_json(tmp_path) == {
        "api": "http://127.0.0.1:1",
        "database_url": "postgresql://a",
        "redis_url": "redis://b",
    }
