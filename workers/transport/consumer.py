"""The Celery consumer of a worker: takes batches from queues and runs them in threads."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery
from celery.apps import worker as celery_program
from celery.exceptions import Reject
from celery.signals import setup_logging, worker_shutting_down

from common import logs
from common.wire.celery_app import EMBED_TASK
from common.wire.messages import Batch
from workers.batches.outcome import BatchOutcome
from workers.batches.retry_policy import RequeueError
from workers.transport.control import answer_questions_only
from workers.transport.task_events import BufferedEvents
from workers.transport.task_outcomes import BatchFailedError, BatchRequest, Shown, task_result

log = logging.getLogger("workers")

#: Number of batches at once. While one is computed, the next is fetched and the last is written:
#: 3 or 4 keep a GPU busy.
THREADS = 4


def consume(
    app: Celery,
    queues: Sequence[str],
    name: str,
    *,
    run: Callable[[Batch], BatchOutcome],
    on_stop: Callable[[], None],
) -> int:
    """Run the Celery worker until it is told to stop.

    Args:
        name: of the worker, with its host's: ``cuda0-4711@gpu-3``.
        run: runs a batch; RequeueError requeues its message. All else acknowledges it.
        on_stop: called when the worker is told to stop; the threads go on until their batches end.

    Returns:
        The exit code.
    """

    # An error in ``throws`` has no line in the log: the runner has its own.
    @app.task(  # type: ignore[untyped-decorator]
        name=EMBED_TASK, Request=BatchRequest, throws=(BatchFailedError,), acks_on_failure=True
    )
    def embed(**message: Any) -> Shown:
        batch = Batch.model_validate(message)  # valid: the guard checked it
        with logs.about(job=batch.job, batch=batch.index, rung=batch.rung):
            try:
                outcome = run(batch)
            except RequeueError as error:
                log.warning("Batch %d of %s is requeued: %s.", batch.index, batch.job, error)
                raise Reject(str(error), requeue=True) from None
        return task_result(outcome)

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def stop(**_: Any) -> None:
        on_stop()

    answer_questions_only()
    app.steps["consumer"].add(BufferedEvents)
    quiet_logs()
    options = ["--pool=threads", f"--concurrency={THREADS}", f"--hostname={name}"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel=INFO"]
    log.info("Ready: taking batches from %s.", ", ".join(queues))
    try:
        app.worker_main(["--quiet", "worker", f"--queues={','.join(queues)}", *options, *quiet])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def quiet_logs() -> None:
    """Have Celery log as this process does, without its lines that a batch began, succeeded or was
    requeued: the worker has its own line for every batch.
    """
    celery_program.safe_say = say_in_log
    # With a receiver of this signal, Celery leaves the handlers of this process as they are.
    setup_logging.connect(keep_logging, weak=False)
    logging.getLogger("celery.app.trace").addFilter(is_no_reject)
    for logger in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(logger).setLevel(logging.WARNING)


def say_in_log(message: str, *_: Any) -> None:
    """Log what Celery prints when it is told to end."""
    logs.say(message)


def keep_logging(**_: Any) -> None:
    """Set up nothing."""


def is_no_reject(record: logging.LogRecord) -> bool:
    """Whether a log record is about something else than a requeued message."""
    return not (record.exc_info and isinstance(record.exc_info[1], Reject))
