"""The whole API on one screen: what is shared, what stands before every request, and the routes."""

from collections.abc import Collection, Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from ordinaut import __version__
from ordinaut.api import (
    backfills,
    dead,
    events,
    handshake,
    health,
    hooks,
    log,
    openapi,
    projections,
    refresh,
    rehearsals,
    replays,
    runs,
    schedules,
    spaces,
    taskcontrol,
    tasks,
    windows,
)
from ordinaut.api import tools as tool_list
from ordinaut.api.auth import Authenticate
from ordinaut.api.door import Door, Trouble
from ordinaut.api.head import Head
from ordinaut.api.problems import Observe, add_handlers
from ordinaut.runtime.system import System

DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:"
)
"""What /docs may load: itself and this server's answers."""


def create_app(
    system: System,
    *,
    tools: Mapping[str, Mapping[str, Any]] | None = None,
    roles: Collection[str] = ("api",),
    troubles: Mapping[str, Trouble] | None = None,
) -> FastAPI:
    """The ASGI application.

    `tools` are those that steps may use, by name (`tool.operation`), each with its `description`,
    `input_schema` and `output_schema` (None: names are not checked); `roles` those that run in this
    process; `troubles` says, by name, what is wrong with a part of it (None: nothing), for /health/ready.
    """
    app = FastAPI(
        title="Ordinaut",
        version=__version__,
        description="Do things reliably later, again, or when something happens.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.door = door = Door(system, tools, roles, troubles or {})
    for module in (
        tasks, taskcontrol, schedules, refresh, backfills, replays, rehearsals, tool_list, runs, spaces,
        events, handshake, windows, dead, hooks, log, projections, health,
    ):  # fmt: skip
        app.router.routes.extend(module.router.routes)
    openapi.describe(app)
    add_handlers(app)
    page = (files("ordinaut.api") / "docs.html").read_text(encoding="utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The API's description for people. Everything on the page comes from this server."""
        return HTMLResponse(page, headers={"Content-Security-Policy": DOCS_POLICY})

    # The one added last is the outermost.
    app.add_middleware(Head)
    app.add_middleware(Authenticate, keys=door.keys)
    app.add_middleware(Observe)
    return app
