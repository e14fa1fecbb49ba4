"""Which tools there are: the built-in ones and those of installed packages.

A package offers tools by entry points of the group `ordinaut.tools`: each names a `Tool`, or a
function, which then becomes the tool that the entry point is called:

    [project.entry-points."ordinaut.tools"]
    "text.shout" = "my_package.tools:shout"
"""

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

from ordinaut.domain.errors import NotFound
from ordinaut.work.tools import debug, event, http, log, stream
from ordinaut.work.tools.base import Tool
from ordinaut.work.tools.functions import from_function

GROUP = "ordinaut.tools"
BUILT_IN = (http.GET, http.POST, http.REQUEST, event.PUBLISH, stream.ADD, log.WRITE, debug.ECHO)


class Registry:
    """The tools by name. `broken` says, by entry point name, which could not be loaded and why."""

    def __init__(self, tools: Iterable[Tool], broken: Mapping[str, str] | None = None) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self.broken = dict(broken or {})

    @classmethod
    def load(cls) -> "Registry":
        """The built-in tools and those of every installed package.

        What cannot be loaded is logged, kept in `broken` and does not stop the others. A built-in
        tool cannot be replaced, and the first of two with the same name (in the order of entry point
        names) is kept.
        """
        tools = {tool.name: tool for tool in BUILT_IN}
        broken: dict[str, str] = {}
        for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
            try:
                tool = _offered(entry)
                if tool.name in tools:
                    raise ValueError(f"there already is a tool {tool.name!r}")
            except (Exception, SystemExit) as error:
                broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"
                structlog.get_logger(__name__).warning(
                    "tool not loaded", tool=entry.name, reason=broken[entry.name]
                )
            else:
                tools[tool.name] = tool
        return cls(tools.values(), broken)

    def get(self, name: str) -> Tool:
        """The tool called `name`; raises `NotFound` that says what is nearest, or why it is broken."""
        found = self._tools.get(name)
        if found is not None:
            return found
        if name in self.broken:
            raise NotFound(f"tool {name!r} could not be loaded: {self.broken[name]}")
        near = difflib.get_close_matches(name, self._tools, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.names())}"
        raise NotFound(f"there is no tool {name!r}; {hint}")

    def described(self) -> dict[str, dict[str, Any]]:
        """By name, what is public about each tool: `description`, `input_schema`, `output_schema`, and
        whether it may be given `secrets`."""
        return {
            tool.name: {
                "description": tool.description,
                "input_schema": tool.input_schema,
                "output_schema": tool.output_schema,
                "secrets": tool.secrets,
            }
            for tool in self._tools.values()
        }

    def names(self) -> list[str]:
        """The names of all tools that can be called, sorted."""
        return sorted(self._tools)


def _offered(entry: EntryPoint) -> Tool:
    offered = entry.load()
    if isinstance(offered, Tool):
        return offered
    if not callable(offered) or isinstance(offered, type):
        raise TypeError(f"{type(offered).__name__} is neither a Tool nor a function")
    return from_function(offered, name=entry.name)
