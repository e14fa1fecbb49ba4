"""The application and its task, imported by `celery worker` and by the producer."""

from celery import Celery

from benchmarks import measure
from benchmarks.peers import harness

app = Celery("noop", broker=harness.connection()[1])
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    task_send_sent_event=False,
    worker_enable_remote_control=False,
    broker_pool_limit=None,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop", ignore_result=True)
def noop(stamp: float) -> None:
    """Does nothing, and says when it began."""
    measure.hit(stamp)
