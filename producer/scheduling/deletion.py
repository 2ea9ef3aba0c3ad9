"""Deleting a job, so that a process that stops in the middle deletes nothing of a later one."""

from collections.abc import Callable
from dataclasses import dataclass

from common.advice import how_to
from common.errors import JobRunningError, UnknownJobError
from common.job.layout import (
    closed_key,
    copies_prefix,
    input_prefix,
    job_prefix,
    manifest_key,
    opening_key,
    output_prefix,
    priority_key,
    quarantine_prefix,
    reused_prefix,
)
from common.job.manifest import find_job
from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES, Progress
from common.store import Store
from common.text import counted, counted_bytes
from producer.scheduling.closed import read_closed
from producer.scheduling.job_lock import JobLockedError


def find_to_delete(
    store: Store, ledger: Ledger, job: str, *, running: bool
) -> tuple[Progress | None, float | None]:
    """Find a job that is to be deleted; return what Redis knows of it, and when it was staged.

    Both are None for what a deletion that was cut has left.

    Args:
        running: whether it may be neither finished nor cancelled.

    Raises:
        JobRunningError: it is neither, or that is not known.
        UnknownJobError: neither Redis nor the store knows it, or they know different jobs.
    """
    known, staged = ledger.jobs.progress(job), staged_at(store, job)
    if staged is None and not has_objects(store, job):
        if known is None:
            raise UnknownJobError(f"Neither Redis nor {store.url} knows a job {job!r}.")
        raise UnknownJobError(
            f"{store.url} has no job {job!r}, which Redis knows. Is this the store it was "
            "submitted to?"
        )
    if known is not None and staged not in (None, known.created):
        raise UnknownJobError(
            f"Job {job} in {store.url} is another than the one of that name in Redis: it was "
            "submitted at another time. Is this the store it was submitted to, and its Redis?"
        )
    if running:
        pass
    elif known is not None:
        if known.state in OPEN_STATES:
            raise job_is_running(job)
    elif staged is not None and read_closed(store, job) is None:
        raise may_be_running(store, job)
    return known, staged if known is None else known.created


def delete_job(
    store: Store,
    ledger: Ledger,
    job: str,
    hold: Callable[[], None],
    *,
    created: float | None,
    only_closed: bool = False,
) -> bool:
    """Delete a job from Redis and from the store; False if it was to be closed, and is open.

    Args:
        hold: renews the job's lock; raises if another process had it meanwhile.
        created: when the job was staged. None: neither the ledger nor the store knows it.

    Raises:
        JobLockedError: the job was resumed, or submitted again, before all of it was deleted.
    """

    def is_known() -> bool:
        found = ledger.jobs.progress(job)
        return created is not None and found is not None and found.created == created

    def check() -> None:
        hold()
        if is_known():
            raise resumed(job)

    def check_first() -> None:
        check()
        # Redis may have been emptied since the job was resumed.
        if only_closed and read_closed(store, job) is None:
            raise resumed(job)

    hold()
    if is_known() and not ledger.jobs.forget(job, created, only_closed=only_closed):
        return False
    # First, so that nobody resumes what is about to go.
    store.delete(manifest_key(job), check_first)
    store.delete(job_prefix(job), check)
    return True


@dataclass(frozen=True)
class Size:
    """What a job takes in the store."""

    objects: int
    bytes: int

    def __str__(self) -> str:
        return f"{counted(self.objects, 'object')}, {counted_bytes(self.bytes)}"


def size_of(store: Store, job: str) -> Size:
    """Return what a job takes in the store, from a listing of it."""
    sizes = list(store.sizes(job_prefix(job)))
    return Size(len(sizes), sum(sizes))


def job_is_running(job: str) -> JobRunningError:
    return JobRunningError(
        f"Job {job} is neither finished nor cancelled. To cancel it first: {how_to('cancel', job)}"
    )


def may_be_running(store: Store, job: str) -> JobRunningError:
    return JobRunningError(
        f"Redis does not know job {job}, and {store.url} has no mark that it is closed: it may be "
        "running on another Redis. Give the one that it was submitted to; if that was emptied, "
        f"resume the job and cancel it first: {how_to('resume', job)}, {how_to('cancel', job)}"
    )


def resumed(job: str) -> JobLockedError:
    return JobLockedError(f"Job {job} was resumed while it was deleted: it stays.")


def staged_at(store: Store, job: str) -> float | None:
    """Return when a store's job was staged; None if the store has no such job."""
    manifest = find_job(store, job)
    return None if manifest is None else manifest.created.timestamp()


def has_objects(store: Store, job: str) -> bool:
    """Return whether a store has objects of a job, as after a deletion that was cut."""
    objects = opening_key(job), closed_key(job), priority_key(job)
    of_batches = (input_prefix, copies_prefix, reused_prefix, output_prefix, quarantine_prefix)
    parts = (*objects, *(prefix(job) for prefix in of_batches))
    return any(True for part in parts for _ in store.keys(part))
