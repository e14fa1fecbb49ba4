"""What commands print of what anybody may have sent."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markup import escape
from rich.table import Table

from ordinaut.cli.output import PlainConsole, print_json

HOSTILE = "\x1b[2Jgone \x1b]0;title\x07 \x9b31m [red]no[/] a\rb\x7f"


def printed(*, terminal: bool) -> str:
    console = PlainConsole(file=io.StringIO(), force_terminal=terminal, highlight=False, width=200)
    table = Table("column")
    table.add_row(escape(HOSTILE))
    console.print(f"[bold]{escape(HOSTILE)}[/]")
    console.print(HOSTILE, markup=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_a_terminal_would_obey_is_shown_and_not_sent() -> None:
    text = printed(terminal=False)
    assert text.count(r"\x1b[2Jgone \x1b]0;title\x07 \x9b31m [red]no[/] a\x0db\x7f") == 3
    assert not [char for char in text if not char.isprintable() and char != "\n"]


def test_on_a_terminal_nothing_but_our_own_colours_is_sent() -> None:
    text = printed(terminal=True)
    for own in ("\x1b[1m", "\x1b[0m"):
        text = text.replace(own, "")
    assert not [char for char in text if not char.isprintable() and char != "\n"]


@given(st.text())
def test_json_for_a_terminal_is_the_same_json(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", out := io.StringIO())
        print_json({"text": text, text: 1})
    shown = out.getvalue()
    assert json.loads(shown) == {"text": text, text: 1} | ({"text": 1} if text == "text" else {})
    assert not [char for char in shown if ord(char) in range(0x7F, 0xA0) or (ord(char) < 32 and char != "\n")]
