"""What `ordinaut dev` tells people to type can be typed as it stands."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ordinaut.cli.dev import Session
from ordinaut.cli.dev_banner import banner
from ordinaut.cli.program import program, typed
from ordinaut.runtime.settings import load_settings


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with a program in .venv/bin, which is not on the PATH."""
    directory = tmp_path.resolve() / "check out"
    executable(directory / ".venv" / "bin" / "ordinaut")
    monkeypatch.chdir(directory)
    monkeypatch.delenv("ORDINAUT_API_KEY", raising=False)
    monkeypatch.setenv("PATH", str(directory / "bin"))
    monkeypatch.setattr(sys, "argv", [".venv/bin/ordinaut", "dev"])
    return directory


def executable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def told(directory: Path) -> list[str]:
    settings = load_settings(redis_url="redis://127.0.0.1:7777/0")
    session = Session(settings, directory / ".ordinaut", "http://127.0.0.1:8080", "ord_k", False, True)
    text = io.StringIO()
    banner(Console(file=text, width=200), session, ["big-orders"], demo=True)
    return [line.strip() for line in text.getvalue().splitlines()]


def test_a_program_that_is_not_on_the_path_is_called_by_its_path(checkout: Path) -> None:
    assert program() == ".venv/bin/ordinaut"
    (checkout / "bin").symlink_to(checkout / ".venv" / "bin")
    assert program() == "ordinaut"


def test_another_program_of_the_name_on_the_path_is_not_meant(checkout: Path) -> None:
    executable(checkout / "bin" / "ordinaut")
    assert program() == ".venv/bin/ordinaut"


def test_run_as_a_module_it_is_called_as_one(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(checkout / "ordinaut" / "__main__.py"), "dev"])
    monkeypatch.setattr(sys, "executable", str(checkout / ".venv" / "bin" / "python"))
    assert program() == ".venv/bin/python -m ordinaut"


def test_paths_are_relative_below_the_current_directory_and_quoted_where_they_must_be(checkout: Path) -> None:
    assert typed(checkout / ".ordinaut" / "admin-key") == ".ordinaut/admin-key"
    assert typed(checkout.parent / "else where") == f"'{checkout.parent}/else where'"


def test_the_banner_names_redis_cli_only_where_there_is_one(checkout: Path) -> None:
    lines = told(checkout)
    assert "admin key   in .ordinaut/admin-key" in lines
    assert ".venv/bin/ordinaut task list" in lines
    published = """.venv/bin/ordinaut event publish orders '{"id": 8, "amount": 250}'"""
    assert published in lines
    assert not any("XADD" in line for line in lines)

    executable(checkout / "bin" / "redis-cli")
    lines = told(checkout)
    entry = """redis-cli -p 7777 XADD orders '*' data '{"id": 8, "amount": 250}'"""
    assert lines.index(published) < lines.index(entry)
