"""What `ordinaut dev` says when it is ready: where everything is and what to try."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape

from ordinaut.cli.client import KEY_FILE
from ordinaut.cli.program import program, typed
from ordinaut.runtime.logging import without_password
from ordinaut.runtime.settings import Settings

TRY_ORDER = """'{"id": 8, "amount": 250}'"""


@dataclass(frozen=True, slots=True)
class Session:
    """What one `ordinaut dev` works with. `new_key` says that the key was made just now."""

    settings: Settings
    directory: Path
    api: str
    key: str
    new_key: bool
    examples: bool


def banner(console: Console, session: Session, examples: Sequence[str], *, demo: bool) -> None:
    """Print it; the key itself only when it is new."""
    here, ordinaut = typed(session.directory), escape(program())
    default = session.settings.data_dir == Path(".ordinaut") and here == ".ordinaut"
    key_file = typed(session.directory / KEY_FILE)
    from_file = session.settings.api_key is None
    bearer = f"$(cat {key_file})" if from_file else "$ORDINAUT_API_KEY"
    lines = [
        "",
        f"[bold green]Ordinaut is ready[/] at [bold]{session.api}[/]   (Ctrl-C stops everything)",
        "",
        f"  reference   {session.api}/docs",
        f"  database    {without_password(session.settings.database_url)}",
        f"  redis       {without_password(session.settings.redis_url)}",
    ]
    if session.new_key:
        lines.append(f"  admin key   [bold]{session.key}[/]  (shown once; kept in {key_file})")
    elif from_file:
        lines.append(f"  admin key   in {key_file}")
    else:
        lines.append("  admin key   the one in ORDINAUT_API_KEY")
    if examples:
        lines.append(f"  examples    {', '.join(examples)}")
    lines += ["", "Try, in another terminal:"]
    if not default:
        lines.append(f"  export ORDINAUT_DATA_DIR={here}")
    lines.append(f"  {ordinaut} task list")
    lines.append(f'  curl -H "Authorization: Bearer {bearer}" "{session.api}/v1/runs?limit=3"')
    if "big-orders" in examples:
        lines.append(f"  {ordinaut} event publish orders {TRY_ORDER}")
        if client := _redis_client(session.settings.redis_url):
            lines.append(f"  {client} XADD orders '*' data {TRY_ORDER}")
    lines += ["", "What happens (the first order is added by itself):" if demo else "What happens:"]
    for line in lines:
        console.print(line, soft_wrap=True)


def _redis_client(url: str) -> str | None:
    """The command that talks to this Redis; None when the machine has none, or it cannot by this URL."""
    command = next(filter(shutil.which, ("redis-cli", "valkey-cli")), None)
    if command is None:
        return None
    parts = urlsplit(url)
    if "+" in parts.scheme:
        return None  # it knows neither sentinels nor clusters by a URL
    if parts.password or parts.scheme != "redis":
        return f'{command} -u "$ORDINAUT_REDIS_URL"'
    number = parts.path.strip("/")
    host = f" -h {parts.hostname}" if parts.hostname not in ("127.0.0.1", "localhost") else ""
    return f"{command}{host} -p {parts.port or 6379}" + (f" -n {number}" if number not in ("", "0") else "")
