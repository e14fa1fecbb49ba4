"""/v1/projections: how far each read table is."""

from typing import Any

from fastapi import APIRouter, Request

from ordinaut.api.door import Direct, door_of, query
from ordinaut.api.queries import Query
from projections.rebuild import status

router = APIRouter(prefix="/v1/projections", tags=["system"], route_class=Direct)


@router.get("")
@query()
async def list_projections(request: Request) -> dict[str, Any]:
    """Every read table with its position in the log, how many events it lags behind, and its version."""
    Query(request, ())
    async with door_of(request).system.pool.acquire() as connection:
        return {"items": await status(connection), "next": None}
