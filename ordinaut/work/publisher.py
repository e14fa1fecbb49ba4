"""What a step's `event.publish` does: the same door as `POST /v1/events`, once per idempotency key."""

from typing import Any

from ordinaut.domain import ids
from ordinaut.runtime.publish import publish_event
from ordinaut.runtime.system import System
from ordinaut.runtime.triggers import TriggerIndex
from ordinaut.work.tools.base import StepContext


class Publisher:
    """Publishes events that steps bring forth; an event is one deeper than the run it comes from."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._index = TriggerIndex(system.pool)

    async def publish(self, stream: str, data: Any, context: StepContext) -> dict[str, Any]:
        """Record the event and the runs it asks for. Its id follows from the step's idempotency key and
        the time from the run's id, so every attempt at the step publishes the same event."""
        milliseconds = int(context.run_id.replace("-", "")[:12], 16)
        answer = await publish_event(
            self._system,
            self._index,
            space=context.space,
            stream=stream,
            data=data,
            event_id=ids.cause_id(milliseconds, "publish", context.idempotency_key),
            actor=context.actor,
            correlation=context.correlation,
            causation=context.causation,
            depth=context.depth + 1,
        )
        return {"id": answer["id"], "runs": answer["runs"]}
