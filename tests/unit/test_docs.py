"""The pages of docs/ name everything there is, and what they show is good."""

import ast
import re
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pytest
import typer

from ordinaut.api import problems
from ordinaut.cli.main import app
from ordinaut.cli.yaml_source import load_documents
from ordinaut.domain import errors
from ordinaut.domain.definition import parse_definition
from ordinaut.domain.definition_model import (
    ConcurrencyModel,
    PolicyModel,
    RetryModel,
    StepModel,
    TaskModel,
)
from ordinaut.domain.schedules.spec import FIELDS
from ordinaut.domain.tool_input import tool_inputs
from ordinaut.domain.trigger_model import (
    AbsentModel,
    OnEventModel,
    OnModel,
    OnPartsModel,
    PartModel,
    TogetherModel,
)
from ordinaut.runtime.metrics import REGISTRY
from ordinaut.work.tools.functions import from_function
from ordinaut.work.tools.registry import BUILT_IN, Registry
from projections.base import Projection
from tests.support.processes import ROOT

TASKS = (ROOT / "docs" / "tasks.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
INVARIANTS = (ROOT / "docs" / "invariants.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_every_field_of_a_task_is_on_the_page() -> None:
    models = (
        TaskModel, StepModel, RetryModel, PolicyModel, OnModel, OnEventModel, ConcurrencyModel, OnPartsModel,
        PartModel, TogetherModel, AbsentModel,
    )  # fmt: skip
    fields = {field.alias or name for model in models for name, field in model.model_fields.items()}
    missing = [
        name for name in fields | set(chain(*FIELDS.values())) if not re.search(rf"`[^`]*\b{name}\b", TASKS)
    ]
    assert missing == []


def test_every_tool_and_what_it_takes_is_on_the_page() -> None:
    for tool in BUILT_IN:
        assert isinstance(tool.input_schema, dict)
        for name in (tool.name, *tool.input_schema.get("properties", {})):
            assert f"`{name}`" in TASKS, f"{tool.name}: {name}"


def test_what_the_page_about_tasks_shows_is_good() -> None:
    document, *parts = (load_documents(block)[0] for block in blocks(TASKS, "yaml"))
    step = {"id": "say", "uses": "debug.echo"}
    tools = tool_inputs(Registry(BUILT_IN).described())
    whole = [{"name": "example", "pipeline": [step], **part.value} for part in parts]
    assert len(whole) >= 2
    for shown in (document.value, *whole):
        parse_definition(shown, created_at=datetime.now(UTC), known_tools=tools)
    defined: dict[str, Any] = {}
    for code in blocks(TASKS, "python"):
        exec(code, defined)
    assert from_function(defined["shout"], name="text.shout").input_schema["required"] == ["text"]
    assert isinstance(defined["FAILURES"], Projection)


def test_every_problem_is_on_the_page_with_its_status() -> None:
    known = [
        one
        for module in (errors, problems)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, errors.OrdinautError) and one is not errors.OrdinautError
    ]
    for one in known:
        assert f"| {one.status} | `{one.slug}` |" in API, one


def test_every_metric_is_on_the_page() -> None:
    for metric in REGISTRY.collect():
        assert f"`{metric.name}{'_total' if metric.type == 'counter' else ''}`" in API, metric.name


def test_every_command_is_on_the_page() -> None:
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        row = next((line for line in API.splitlines() if line.startswith(f"| `ordinaut {name}")), "")
        assert row, name
        for inner in getattr(command, "commands", {}):
            assert re.search(rf"[ |\\]{inner}\b", row), f"{name} {inner}"


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page if (ROOT / page).exists() else ROOT / "docs" / page
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


def _tests() -> dict[str, str]:
    """Every test by name, with what its name, its docstring and its file's docstring say."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        module = ast.parse(path.read_text())
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                said = (node.name.upper(), ast.get_docstring(node), ast.get_docstring(module))
                found[node.name] = " ".join(filter(None, said)).replace("_", " ")
    return found


def test_every_invariant_names_tests_that_exist_and_one_of_them_is_named_after_it() -> None:
    tests = _tests()
    sections = re.findall(r"^## (I\d+) .*?\n(.*?)(?=^## |\Z)", INVARIANTS, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == [f"I{number}" for number in range(1, 13)]
    for name, text in sections:
        named = re.findall(r"`(test_\w+)`", text)
        assert [test for test in named if test not in tests] == [], name
        assert any(re.search(rf"\b{name}\b", tests[test]) for test in named), name
        assert "**Kept by**" in text and "**Not shown" in text, name


def test_every_test_that_the_page_about_tests_names_exists() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    named = re.findall(r"`(test_\w+)`", page)
    assert named and [test for test in named if test not in _tests()] == []
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", page) if not (ROOT / path).exists()] == []


def test_every_file_that_keeps_an_invariant_exists() -> None:
    files = re.findall(r"`([\w/]+\.(?:py|sql|lua))`", INVARIANTS)
    assert files and [path for path in files if not (ROOT / path).exists()] == []
