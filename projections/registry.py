"""All projections there are: the built-in ones and those offered by the entry point group
`ordinaut.projections`; and making their tables."""

from functools import cache
from importlib.metadata import entry_points

import structlog

from ordinaut.log.append import Connection
from projections import backfills, dead_letters, due_work, occurrences, runs, schedules, tasks
from projections.base import Projection, fold_function

GROUP = "ordinaut.projections"

logger = structlog.get_logger(__name__)


@cache
def all_projections() -> dict[str, Projection]:
    """Every projection by name. One from outside that does not load, or takes a name that is in use,
    is left out and reported: a broken plug-in must not stop the system."""
    found = {
        module.PROJECTION.name: module.PROJECTION
        for module in (due_work, schedules, tasks, runs, occurrences, backfills, dead_letters)
    }
    for entry in entry_points(group=GROUP):
        try:
            projection = entry.load()
        except Exception as error:
            logger.error(
                "projection.not_loaded", entry_point=entry.name, error=f"{type(error).__name__}: {error}"
            )
            continue
        if not isinstance(projection, Projection) or projection.name in found or projection.synchronous:
            reason = "it is no Projection, its name is taken, or it wants to be synchronous"
            logger.error("projection.refused", entry_point=entry.name, reason=reason)
            continue
        found[projection.name] = projection
    return found


async def ensure_tables(connection: Connection) -> list[str]:
    """Create the tables of projections that have none, with their checkpoints at 0: their projector
    then reads the whole log. Answers with the names of tables whose definition has a newer version than
    what is there; those want a rebuild."""
    outdated: list[str] = []
    for projection in all_projections().values():
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('ordinaut.projections'))")
            version = await connection.fetchval(
                "SELECT version FROM projection_checkpoints WHERE name = $1", projection.name
            )
            if version is None:
                await connection.execute(projection.ddl)
                await connection.execute(
                    "INSERT INTO projection_checkpoints (name, version, synchronous) VALUES ($1, $2, $3)",
                    projection.name, projection.version, projection.synchronous,
                )  # fmt: skip
            elif version != projection.version:
                # The fold that is there goes with the table that is there, until a rebuild brings both.
                outdated.append(projection.name)
                continue
            await connection.execute(fold_function(projection))
    return outdated
