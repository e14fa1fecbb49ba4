"""Installs pip into this interpreter's environment where the standard ensurepip is missing.

pip's own wheel can install itself. It comes from the index that PIP_INDEX_URL names (pypi.org unless
set), by the index's page for pip (PEP 503), and its SHA-256 must be the one the page gives.
"""

import hashlib
import os
import runpy
import sys
import tempfile
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"


class Links(HTMLParser):
    """Collects the links of an index page, without those of yanked files."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser for every tag."""
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href") and "data-yanked" not in attributes:
            self.found.append(attributes["href"] or "")


def version_of(link: str) -> tuple[int, ...]:
    """The version in `…/pip-VERSION-py3-none-any.whl`; () for a pre-release or anything else."""
    parts = urldefrag(link).url.rsplit("/", 1)[-1].split("-")
    if len(parts) != 5 or parts[2:] != ["py3", "none", "any.whl"]:
        return ()
    numbers = parts[1].split(".")
    return tuple(int(number) for number in numbers) if all(number.isdigit() for number in numbers) else ()


def fetch(url: str) -> tuple[bytes, str]:
    """The body at `url`, and where it was found in the end."""
    accepted = {"Accept": "application/vnd.pypi.simple.v1+html, text/html, */*;q=0.1"}
    request = urllib.request.Request(url, headers=accepted)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return answer.read(), answer.url


def main() -> None:
    """Fetch pip's newest wheel, check it, and let it install itself."""
    page, base = fetch(INDEX)
    links = Links()
    links.feed(page.decode())
    newest = urldefrag(max(links.found, key=version_of, default=""))
    if not version_of(newest.url):
        sys.exit(f"{INDEX} offers no pip; set PIP_INDEX_URL to a package index")
    wheel, _ = fetch(urljoin(base, newest.url))
    if newest.fragment != f"sha256={hashlib.sha256(wheel).hexdigest()}":
        sys.exit(f"{newest.url} from {INDEX} is not what the index says it is (SHA-256 differs)")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / newest.url.rsplit("/", 1)[-1]
        path.write_bytes(wheel)
        sys.path.insert(0, str(path))
        sys.argv = ["pip", "install", "--quiet", "--disable-pip-version-check", str(path)]
        runpy.run_module("pip", run_name="__main__")


if __name__ == "__main__":
    main()
