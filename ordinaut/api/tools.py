"""/v1/tools: what the steps of tasks may use."""

from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api.door import Direct, door_of, query
from ordinaut.api.queries import Query

router = APIRouter(prefix="/v1/tools", tags=["tasks"], route_class=Direct)


@router.get("")
@query()
async def list_tools(request: Request) -> dict[str, Any]:
    """Every tool there is, by name, with the JSON Schemas of what it takes and what it gives."""
    Query(request, ())
    tools = door_of(request).tools or {}
    return {"items": [{"name": name, **tools[name]} for name in sorted(tools)], "next": None}
