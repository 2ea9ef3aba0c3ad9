"""Waiting for a job: reading its progress repeatedly, and keeping it going meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from common.advice import how_to
from common.errors import JobEndedError, UnknownJobError, WaitTimeoutError
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, Progress
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.store import StoreError
from common.wire.messages import BatchResult, Status

#: Seconds between two observations of a job.
POLL_SECONDS = 0.5

#: The same on a fleet of this machine alone, whose jobs may take a second in all.
LOCAL_POLL_SECONDS = 0.1

#: Seconds for which a job may be unknown to Redis: a keeper may be restoring it from the store.
UNKNOWN_SECONDS = 60.0

#: Number of problems listed one by one; the rest are counted.
SHOWN = 20


@dataclass(frozen=True)
class Observation:
    """The state of a job at one moment."""

    progress: Progress | None  # None: Redis does not know the job, or does not answer
    tokens_per_second: float | None = None  # None: not measured yet
    workers: Sequence[WorkerInfo] = ()  # those that serve the job's queue
    trouble: str = ""  # the reason if there is no progress


def wait(
    ledger: Ledger,
    job: str,
    *,
    keep: Callable[[], None],
    check: Callable[[], None] = lambda: None,
    on_progress: Callable[[Observation], None] = lambda _observation: None,
    poll_seconds: float = POLL_SECONDS,
    timeout: float | None = None,
) -> Progress:
    """Wait until a job is finished; return its last progress.

    Args:
        keep: called before every observation, to keep the job going.
        check: called before every observation; an error that it raises ends the waiting.
        on_progress: called with every observation, to display it.
        poll_seconds: seconds between two observations.
        timeout: seconds to wait at most; None: without limit.

    Raises:
        JobEndedError: the job was cancelled or stopped.
        UnknownJobError: Redis no longer knows the job.
        WaitTimeoutError: the job did not finish in time.
    """
    started = time.monotonic()
    found = observations(ledger, job, keep=keep, check=check, poll_seconds=poll_seconds)
    while True:
        latest = next(found)
        on_progress(latest)
        if latest.progress is not None and latest.progress.finished:
            return latest.progress
        if timeout is not None and time.monotonic() - started >= timeout:
            raise WaitTimeoutError(f"Job {job} did not finish within {timeout:g} seconds.")


def observations(
    ledger: Ledger,
    job: str,
    *,
    keep: Callable[[], None],
    check: Callable[[], None],
    poll_seconds: float,
) -> Iterator[Observation]:
    """Observe a job again and again, without end; see ``wait``."""
    speed = Speed()
    known = time.monotonic()
    while True:
        check()
        try:
            keep()
            found = observe(ledger, job, speed)
        except RedisError as error:
            # Redis may be restarting; the workers wait for it in the same way.
            found = Observation(None, trouble=f"Redis does not answer ({error}); waiting for it")
        except StoreError as error:
            found = Observation(None, trouble=f"{error} Waiting for it")
        else:
            known = time.monotonic() if found.progress else known
            if found.progress is None and time.monotonic() - known > UNKNOWN_SECONDS:
                raise UnknownJobError(unknown(job))
        yield found
        time.sleep(poll_seconds)


def observe(ledger: Ledger, job: str, speed: Speed) -> Observation:
    """Observe a job once.

    Raises:
        JobEndedError: the job was cancelled or stopped.
    """
    progress = ledger.jobs.progress(job)
    if progress is None:
        return Observation(
            None, trouble="Redis no longer knows this job: looking for it in the store"
        )
    if progress.state is JobState.CANCELLED:
        raise JobEndedError(f"Job {job} was cancelled. To resume it: {how_to('resume', job)}")
    if progress.state is JobState.STOPPED:
        raise JobEndedError(stopped(ledger, job))
    tokens_per_second = speed.update(time.monotonic(), progress.tokens_done)
    workers = [worker for worker in ledger.workers.all() if progress.queue in worker.queues]
    return Observation(progress, tokens_per_second, workers)


def unknown(job: str) -> str:
    return (
        f"Redis no longer knows job {job}, and no keeper restores it. If its store still has it: "
        f"{how_to('resume', job)}"
    )


def stopped(ledger: Ledger, job: str) -> str:
    """Return a message that says why a job was stopped."""
    errors = "\n".join(problems(ledger.results.all(job)))
    return (
        f"Job {job} stopped, as on_instability fail asks for:\n{errors}\n"
        f"To run these in higher precision: {how_to('resume', job, on_instability='retry')}"
    )


def problems(results: Sequence[BatchResult]) -> list[str]:
    """Return a line for each failed batch, quarantined row, and row that stopped its job."""
    lines: list[str] = []
    for result in results:
        if result.status is Status.FAILED:
            lines.append(f"batch {result.index} ({result.rung}) failed: {result.error}")
        lines += [f"quarantined: {bad}" for bad in result.quarantined]
        lines += [f"not finite: {bad}" for bad in result.unstable if result.stops_job]
    return first_lines(lines)


def first_lines(lines: Sequence[object]) -> list[str]:
    """Return the first few lines, and how many more there are."""
    more = len(lines) - SHOWN
    first = [str(line) for line in lines[:SHOWN]]
    return first if more <= 0 else [*first, f"… and {more:,} more"]


def have_other_weights(progress: Progress, workers: Sequence[WorkerInfo]) -> bool:
    """Return whether all workers have other weights than the job, so that none can continue it."""
    loaded = [worker for worker in workers if worker.weights is not None]
    fit = any(worker.fits(progress.weights, progress.model_digest) for worker in loaded)
    return bool(loaded) and not fit
