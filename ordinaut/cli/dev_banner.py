"""What `ordinaut dev` says when it is ready: where everything is and what to try."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from ordinaut.runtime.logging import without_password

if TYPE_CHECKING:
    from ordinaut.cli.dev import Session

TRY_ORDER = """'{"id": 8, "amount": 250}'"""


def banner(console: Console, session: "Session", examples: Sequence[str], *, demo: bool) -> None:
    """Print it; the key itself only when it is new."""
    here = _relative(session.directory)
    default = session.settings.data_dir == Path(".ordinaut") and here == ".ordinaut"
    key_file = f"{here}/admin-key"
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
    lines.append("  ordinaut task list")
    lines.append(f'  curl -H "Authorization: Bearer {bearer}" {session.api}/v1/runs?limit=3')
    if "big-orders" in examples:
        lines += [
            f"  {_redis_cli(session.settings.redis_url)} XADD orders '*' data {TRY_ORDER}",
            f"  ordinaut event publish orders {TRY_ORDER}",
        ]
    lines += ["", "What happens (the first order is added by itself):" if demo else "What happens:"]
    for line in lines:
        console.print(line, soft_wrap=True)


def _relative(directory: Path) -> str:
    try:
        return str(directory.relative_to(Path.cwd()))
    except ValueError:
        return str(directory)


def _redis_cli(url: str) -> str:
    parts = urlsplit(url)
    if parts.password or parts.scheme != "redis":
        return 'redis-cli -u "$ORDINAUT_REDIS_URL"'
    number = parts.path.strip("/")
    host = f" -h {parts.hostname}" if parts.hostname not in ("127.0.0.1", "localhost") else ""
    return f"redis-cli{host} -p {parts.port or 6379}" + (f" -n {number}" if number not in ("", "0") else "")
