"""`ordinaut hook …`: webhooks, over HTTP."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from ordinaut.cli.client import Client, segment
from ordinaut.cli.output import instant, note, print_json, say, table

HOOKS = "/v1/hooks"


def list_hooks(*, as_json: bool) -> int:
    """`ordinaut hook list`."""
    with Client() as client:
        found = list(client.items(HOOKS, None))
        url = client.url
    if as_json:
        print_json(found)
        return 0
    rows = [
        (
            escape(hook["name"]),
            hook["kind"],
            escape(hook["stream"]),
            escape(", ".join(hook["secrets"])),
            escape(f"{url}{hook['path']}"),
            f"{instant(hook['changed_at'])} by {escape(hook['changed_by'])}",
        )
        for hook in found
    ]
    table(("name", "kind", "stream", "secrets", "url", "since"), rows, "There are no webhooks.")
    return 0


def change(
    name: str, kind: str, stream: str, secrets: Sequence[str], reason: str | None, *, as_json: bool
) -> int:
    """`ordinaut hook set`: prints the URL to give to the sender."""
    body = {"kind": kind, "stream": stream, "secrets": list(secrets), "reason": reason}
    with Client() as client:
        answer = client.put(f"{HOOKS}/{segment(name)}", body)
        url = client.url
    if as_json:
        print_json(answer)
        return 0
    note(
        f"Deliveries signed with {' or '.join(answer['secrets'])} are events on {answer['stream']}. The URL:"
    )
    say(f"{url}{answer['path']}")
    return 0


def remove(name: str, reason: str | None, *, as_json: bool) -> int:
    """`ordinaut hook remove`."""
    with Client() as client:
        answer: dict[str, Any] = client.delete(f"{HOOKS}/{segment(name)}", reason=reason)
    if as_json:
        print_json(answer)
    else:
        note(f"{answer['name']} is gone; what is sent there is 404 from now on.")
    return 0
