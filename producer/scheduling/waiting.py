"""Waiting for a job: reading its progress repeatedly, and keeping it going meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence

from redis.exceptions import RedisError

from common.advice import how_to
from common.errors import JobEndedError, UnknownJobError, WaitTimeoutError
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, Progress
from common.ledger.speed import Speed
from common.store import StoreError
from common.wire.messages import BatchResult, Status
from producer.scheduling.diagnosis import NO_MEMORY
from producer.scheduling.observation import Observation, observe

#: Seconds between two observations of a job.
POLL_SECONDS = 0.5

#: The same on a fleet of this machine alone, whose jobs may take a second in all.
LOCAL_POLL_SECONDS = 0.1

#: Seconds for which a job may be unknown to Redis: a keeper may be restoring it from the store.
UNKNOWN_SECONDS = 60.0

#: Number of problems listed one by one; the rest are counted.
SHOWN = 20


def wait(
    ledger: Ledger,
    job: str,
    *,
    keep: Callable[[], None],
    check: Callable[[], None] = lambda: None,
    on_progress: Callable[[Observation], None] = lambda _observation: None,
    poll_seconds: float = POLL_SECONDS,
    timeout: float | None = None,
    is_local: bool = False,
) -> Progress:
    """Wait until a job is finished; return its last progress.

    Args:
        keep: called before every observation, to keep the job going.
        check: called before every observation; an error that it raises ends the waiting.
        on_progress: called with every observation, to display it.
        poll_seconds: seconds between two observations.
        timeout: seconds to wait at most; None: without limit.
        is_local: whether the job is on a fleet of this machine.

    Raises:
        JobEndedError: the job was cancelled or stopped.
        UnknownJobError: Redis no longer knows the job.
        WaitTimeoutError: the job did not finish in time.
    """
    started = time.monotonic()
    found = observations(
        ledger, job, keep=keep, check=check, poll_seconds=poll_seconds, is_local=is_local
    )
    while True:
        latest = next(found)
        on_progress(latest)
        if latest.progress is not None and latest.progress.finished:
            return latest.progress
        if latest.has_ended:
            continue  # the next look raises
        if timeout is not None and time.monotonic() - started >= timeout:
            raise WaitTimeoutError(f"Job {job} did not finish within {timeout:g} seconds.")


def observations(
    ledger: Ledger,
    job: str,
    *,
    keep: Callable[[], None],
    check: Callable[[], None],
    poll_seconds: float,
    is_local: bool,
) -> Iterator[Observation]:
    """Observe a job again and again; see ``wait``.

    Raises:
        JobEndedError: the job was cancelled or stopped, after the observation that shows it.
    """
    speed = Speed()
    known = time.monotonic()
    while True:
        check()
        try:
            keep()
            found = look(ledger, job, speed, is_local=is_local)
        except RedisError as error:
            # Redis may be restarting; the workers wait for it in the same way.
            reason = f"{NO_MEMORY}" if "OOM" in str(error) else f"Redis does not answer ({error})"
            found = Observation(None, trouble=f"{reason}; waiting for it")
        except StoreError as error:
            found = Observation(None, trouble=f"{error} Waiting for it")
        else:
            known = time.monotonic() if found.progress else known
            if found.progress is None and time.monotonic() - known > UNKNOWN_SECONDS:
                raise UnknownJobError(unknown(job))
        yield found
        if found.progress is not None:
            raise_if_ended(ledger, found.progress)
        time.sleep(poll_seconds)


def look(ledger: Ledger, job: str, speed: Speed, *, is_local: bool = False) -> Observation:
    """Observe a job, which Redis may not know."""
    progress = ledger.jobs.progress(job)
    if progress is None:
        return Observation(
            None, trouble="Redis no longer knows this job: looking for it in the store"
        )
    return observe(ledger, progress, speed, is_local=is_local)


def raise_if_ended(ledger: Ledger, progress: Progress) -> None:
    """Raise JobEndedError if a job was cancelled or stopped."""
    job = progress.job
    if progress.state is JobState.CANCELLED:
        raise JobEndedError(f"Job {job} was cancelled. To resume it: {how_to('resume', job)}")
    if progress.state is JobState.STOPPED:
        raise JobEndedError(stopped(ledger, job))


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
