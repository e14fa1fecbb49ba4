"""How this program and files can be typed in the directory it was started in."""

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """What to type to call this program again: `ordinaut` where that is what PATH finds, else a path to
    it, else the Python that runs it with `-m ordinaut`."""
    here = Path(sys.argv[0])
    if here.name == "__main__.py" or not here.exists():
        return f"{typed(Path(sys.executable))} -m ordinaut"
    found = shutil.which(here.name)
    return here.name if found and here.samefile(found) else typed(here)


def typed(path: Path) -> str:
    """A path as a shell takes it: relative where it lies below the current directory."""
    # Not resolved: a virtual environment's python is a link, and only by its own path is it that one.
    absolute, here = Path.cwd() / path, Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))
