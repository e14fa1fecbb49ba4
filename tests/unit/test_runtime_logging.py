"""Logs are one shape, and nothing secret gets into them (I11)."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import anyio.to_thread
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.domain.errors import Invalid
from ordinaut.domain.redact import MARK, Blotter
from ordinaut.runtime.logging import configure_logging, redact, without_password
from ordinaut.runtime.secrets import hidden_in_logs
from ordinaut.runtime.settings import Settings, load_settings

SECRET = "hunter2hunter2"


Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def json_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Logging as a service has it; answers with a function that gives the lines written so far."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    level = logging.root.level
    monkeypatch.setattr(logging.root, "handlers", [])
    configure_logging(Settings(log_format="json"))
    ours = logging.root.handlers[0]
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logging.root.removeHandler(ours)
    logging.root.setLevel(level)
    structlog.reset_defaults()


def test_our_lines_and_those_of_libraries_have_one_shape(json_logs: Lines) -> None:
    structlog.get_logger("ordinaut.x").info("run finished", run="r1")
    logging.getLogger("uvicorn.error").warning("port %d taken", 8080)
    ours, library = json_logs()
    assert ours["event"] == "run finished" and ours["run"] == "r1" and ours["level"] == "info"
    assert library["event"] == "port 8080 taken" and library["logger"] == "uvicorn.error"
    assert ours.keys() - {"run"} == library.keys()


def test_i11_no_secret_enters_a_log_line(json_logs: Lines) -> None:
    log = structlog.get_logger()
    log.info(
        "call",
        headers={"Authorization": f"Bearer {SECRET}"},
        api_key=SECRET,
        nested=[{"db_password": SECRET}],
    )
    log.info(f"connecting to postgresql://me:{SECRET}@db/ordinaut")
    log.info("redis", url=f"redis://:{SECRET}@cache:6379/0", key=f"ord_{SECRET}")
    logging.getLogger("library").error("sent Authorization: Bearer %s", SECRET)
    try:
        raise OSError(f"cannot reach redis://:{SECRET}@cache")
    except OSError:
        log.exception("failed")
    lines = json_logs()
    assert len(lines) == 5
    assert SECRET not in json.dumps(lines)
    assert "cannot reach redis://:***@cache" in lines[-1]["exception"]


async def test_i11_what_a_step_says_of_its_secrets_is_hidden(json_logs: Lines) -> None:
    with hidden_in_logs(Blotter(['correct "horse"'])):
        structlog.get_logger().info("says", it='correct "horse"')
        await anyio.to_thread.run_sync(logging.getLogger("library").error, 'correct "horse"')
    structlog.get_logger().info('correct "horse"')
    inside, library, outside = json_logs()
    assert (inside["it"], library["event"]) == (MARK, MARK)
    assert outside["event"] == 'correct "horse"'  # only while it is in use does anybody know it


@given(st.text("abcdefXYZ0189!$%^&*()_+-=:", min_size=6, max_size=20))
def test_a_url_loses_its_password_and_nothing_else(password: str) -> None:
    assert (
        without_password(f"postgresql://me:{password}@db:5432/x?a=1") == "postgresql://me:***@db:5432/x?a=1"
    )


@pytest.mark.parametrize(
    "url", ["redis://cache:6379/0", "postgresql://postgres@/x?host=/run/pg", "http://a/b:c@d"]
)
def test_a_url_without_a_password_stays_as_it_is(url: str) -> None:
    assert without_password(url) == url


def test_a_password_in_the_query_is_hidden_too() -> None:
    assert without_password("postgresql:///x?user=a&password=s3cret&host=b") == (
        "postgresql:///x?user=a&password=***&host=b"
    )


def test_what_is_not_secret_is_left_alone() -> None:
    event = {"event": "hello", "run": "r", "key": "orders", "attempt": 2, "token": None}
    assert redact(None, "info", dict(event)) == event


def test_settings_come_from_the_environment_and_say_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDINAUT_DATABASE_URL", f"postgresql://me:{SECRET}@db/x")
    monkeypatch.setenv("ORDINAUT_API_KEY", SECRET)
    monkeypatch.delenv("ORDINAUT_REDIS_URL", raising=False)
    settings = load_settings(port=9, host=None)
    assert (settings.port, settings.host) == (9, "127.0.0.1")
    assert settings.given("database_url") and not settings.given("redis_url")
    assert SECRET not in repr(settings)


def test_every_wrong_setting_is_named_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDINAUT_PORT", "eighty")
    monkeypatch.setenv("ORDINAUT_LOG_FORMAT", "xml")
    with pytest.raises(Invalid) as refused:
        load_settings()
    assert len(refused.value.faults) == 2
    assert "ORDINAUT_PORT" in refused.value.message and "ORDINAUT_LOG_FORMAT" in refused.value.message


def test_every_setting_is_explained() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
