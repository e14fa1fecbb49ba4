"""The broker and its task, imported by `taskiq worker` and by the producer."""

from taskiq_redis import RedisStreamBroker

from benchmarks import measure
from benchmarks.peers import harness

QUEUE = "taskiq"
GROUP = "taskiq"

# "0": a group made by a worker that starts late must not miss what was enqueued before.
broker = RedisStreamBroker(
    harness.connection()[1], queue_name=QUEUE, consumer_group_name=GROUP, consumer_id="0", xread_count=1000
)


@broker.task(task_name="noop")
async def noop(stamp: float) -> None:
    """Does nothing, and says when it began."""
    measure.hit(stamp)
