"""Files of definitions: which values they hold, in which line, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ordinaut.cli.yaml_source import BadSource, load_documents

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab/~ \t"), inner, max_size=4),
    max_leaves=15,
)


def only(text: str, name: str = "task.yaml") -> Any:
    [document] = load_documents(text, name)
    return document.value


@given(json_values.filter(lambda value: value is not None))
def test_json_is_read_as_it_is_whether_named_json_or_yaml(value: Any) -> None:
    text = json.dumps(value, indent=1)
    assert only(text, "task.json") == value
    assert only(json.dumps(value, indent="\t", ensure_ascii=False), "task.json") == value
    assert only(json.dumps(value, ensure_ascii=False, indent=1).replace("\\/", "/")) == value


@given(st.dictionaries(st.text("abon"), json_values, min_size=1, max_size=3))
def test_what_is_written_as_yaml_is_read_back(value: Any) -> None:
    assert only(yaml.safe_dump(value, allow_unicode=True, default_style='"', sort_keys=False)) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("12:30", "12:30"),
        ("1:00:00", "1:00:00"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T08:30:00Z", "2026-01-01T08:30:00Z"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("5s", "5s"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("1.2.3", "1.2.3"),
        (".", "."),
        ("~", None),
        ("null", None),
        ("", None),
        ("=", "="),
        ("<<", "<<"),
        ("'5'", "5"),
        ('"true"', "true"),
    ],
)
def test_plain_words_are_resolved_as_yaml_1_2_does(written: str, value: Any) -> None:
    read = only(f"x: {written}\ny: 1")["x"]
    assert read == value
    assert type(read) is type(value)


def test_keys_are_texts_whatever_they_look_like() -> None:
    assert only("on: {stream: a}\nif: yes\n1: x\nnull: y") == {
        "on": {"stream": "a"},
        "if": "yes",
        "1": "x",
        "null": "y",
    }


EXAMPLE = """\
# a comment
name: morning
pipeline:
  - id: one
    uses: http.get
    with:
      url: x
      a/b~c: 1

  - id: two
---
name: evening
"""


def test_every_part_knows_its_line() -> None:
    morning, evening = load_documents(EXAMPLE, "day.yaml")
    lines = {
        "": 2,
        "/name": 2,
        "/pipeline": 3,
        "/pipeline/0": 4,
        "/pipeline/0/uses": 5,
        "/pipeline/0/with/url": 7,
        "/pipeline/0/with/a~1b~0c": 8,
        "/pipeline/1": 10,
    }
    assert {pointer: morning.locate(pointer) for pointer in lines} == {
        pointer: f"day.yaml:{line}" for pointer, line in lines.items()
    }
    assert evening.locate("/name") == "day.yaml:12"


def test_what_is_missing_is_where_it_should_have_been() -> None:
    morning, _ = load_documents(EXAMPLE, "day.yaml")
    assert morning.locate("/pipeline/1/uses/x") == "day.yaml:10"
    assert morning.locate("/policy") == "day.yaml:2"


def test_json_files_know_their_lines_too() -> None:
    [document] = load_documents('{\n\t"name": "x",\n\t"a": [\n\t\t1,\n\t\t2]}', "x.json")
    assert document.locate("/a/1") == "x.json:5"


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("a: &x 1\nb: *x", "t.yaml:1", "anchors and aliases"),
        ("a: 1\nb: *x", "t.yaml:2", "anchors and aliases"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "t.yaml:4", "'c' is there twice (first in line 3)"),
        ("a: 1\nb: !!python/object:os.system x", "t.yaml:2", "the tag"),
        ("a: !!int five", "t.yaml:1", "not of the type int"),
        ("a: 1\n b: 2", "t.yaml:2", "not good YAML"),
        ("a: [1", "t.yaml:1", "not good YAML"),
        ("? [a, b]\n: 1", "t.yaml:1", "a key must be text"),
        ("a: \x07", "t.yaml", "not good YAML"),
        ("a: " + "[" * 2000 + "]" * 2000, "t.yaml", "deeper"),
        ("a: " + "[" * 100 + "]" * 100, "t.yaml:1", "deeper"),
        ("# nothing\n---\n", "t.yaml", "no document"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, place: str, told: str) -> None:
    with pytest.raises(BadSource) as refused:
        load_documents(text, "t.yaml")
    assert refused.value.place == place
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ('{"a": 1,\n "a": 2}', "t.json:2", "'a' is there twice"),
        ('{"a": 1,\n}', "t.json:2", "not JSON"),
        ('{"a": NaN}', "t.json", "NaN"),
        ("[" * 3000, "t.json", "not JSON"),
    ],
)
def test_json_that_cannot_be_read_is_refused_with_its_line(text: str, place: str, told: str) -> None:
    with pytest.raises(BadSource) as refused:
        load_documents(text, "t.json")
    assert refused.value.place == place
    assert told in refused.value.message


def test_a_file_that_cannot_be_opened_or_is_not_utf_8_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="No such file"):
        load_documents(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"a: 1\nb: \xff")
    with pytest.raises(BadSource, match=r"bad\.yaml:2: is not UTF-8"):
        load_documents(bad)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for name in ("t.yaml", "t.json"):
        try:
            load_documents(text, name)
        except BadSource as error:
            assert error.message.startswith(error.place)
