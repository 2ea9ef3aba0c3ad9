"""The state of a job at one moment, with all that may keep it from going on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.ledger.events import STORE_FAILED, EventKind
from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES, Progress
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo, running_tokens
from common.wire.queues import Queues
from common.wire.redis_client import has_memory_left
from producer.scheduling.lost_messages import batch_key_of

#: Seconds after which a worker's reason to requeue a batch is old. A worker tries again sooner.
REQUEUED_SECONDS = 120.0


@dataclass(frozen=True)
class Observation:
    """The state of a job at one moment."""

    progress: Progress | None  # None: Redis does not know the job, or does not answer
    tokens_per_second: float | None = None  # None: not measured yet
    workers: Sequence[WorkerInfo] = ()  # those that serve the job's queue
    trouble: str = ""  # the reason if there is no progress
    other_workers: Sequence[WorkerInfo] = ()  # of its model, but serving other queues
    store_error: str = ""  # the store's last answer to a worker, if it was an error
    requeued: str = ""  # why a worker requeued a batch, if its store did not fail
    is_queued: bool = True  # whether messages wait in its queues, or nobody looked
    is_kept: bool = True  # whether a keeper runs, or nobody looked
    has_memory: bool = True  # whether Redis can write, or nobody looked
    is_local: bool = False  # on a fleet of this machine, whose workers the user did not start
    running_tokens: int = 0  # done of batches that are not

    @property
    def has_ended(self) -> bool:
        """Whether this is the last observation: the job is finished, cancelled or stopped."""
        return self.progress is not None and self.progress.state not in OPEN_STATES


def observe(ledger: Ledger, progress: Progress, speed: Speed, *, is_local: bool) -> Observation:
    """Observe a job once. What is read costs a running job little."""
    # Leases before entries: the last entry of a batch that has just been done may be old.
    leased = ledger.leases.held(progress.job) if progress.leased else set()
    workers = ledger.workers.all()
    running = running_tokens(workers, progress.job, leased)
    done = progress.tokens_done + running
    # The time before its first batch, in which a model is loaded, says nothing of a job's speed.
    has_begun = bool(progress.leased or done)
    serving = [worker for worker in workers if progress.queue in worker.queues]
    is_idle = progress.state in OPEN_STATES and not progress.leased
    is_queued = not is_idle or has_messages(ledger, progress)
    reason = requeue_reason(ledger, progress.job)
    is_store_error = reason.startswith(STORE_FAILED)
    return Observation(
        progress,
        speed.update(time.monotonic(), done) if has_begun else None,
        serving,
        other_workers=[w for w in workers if w.model == progress.model and w not in serving],
        store_error=reason if is_store_error else "",
        requeued="" if is_store_error else reason,
        is_queued=is_queued,
        is_kept=is_queued or ledger.locks.is_any_store_kept(),
        has_memory=not is_idle or has_memory_left(ledger.redis),
        is_local=is_local,
        running_tokens=running,
    )


def has_messages(ledger: Ledger, progress: Progress) -> bool:
    """Return whether messages wait in a job's queues, or are on their way to a worker."""
    queues = Queues(ledger.redis)
    if any(map(queues.length, progress.queues.values())):
        return True
    in_flight = filter(None, map(batch_key_of, queues.in_flight()))
    return any(job == progress.job for job, _, _ in in_flight)


def requeue_reason(ledger: Ledger, job: str) -> str:
    """Return why a worker requeued a batch, if that is the job's latest event."""
    for event in ledger.events.latest(job, 1):
        seconds = ledger.events.now() - event.time
        if event.event is EventKind.REQUEUED and seconds < REQUEUED_SECONDS:
            return event.detail
    return ""
