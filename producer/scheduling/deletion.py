"""Deleting a job, so that a process that stops in the middle deletes nothing of a later one."""

from collections.abc import Callable
from dataclasses import dataclass

from common.advice import how_to
from common.errors import JobRunningError
from common.job.layout import (
    closed_key,
    input_prefix,
    job_prefix,
    manifest_key,
    output_prefix,
    priority_key,
    quarantine_prefix,
)
from common.job.manifest import find_job
from common.ledger.ledger import Ledger
from common.store import Store
from common.text import counted, counted_bytes
from producer.scheduling.closed import read_closed
from producer.scheduling.job_lock import JobLockedError


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


def resumed(job: str) -> JobLockedError:
    return JobLockedError(f"Job {job} was resumed while it was deleted: it stays.")


def staged_at(store: Store, job: str) -> float | None:
    """Return when a store's job was staged; None if the store has no such job."""
    manifest = find_job(store, job)
    return None if manifest is None else manifest.created.timestamp()


def has_objects(store: Store, job: str) -> bool:
    """Return whether a store has objects of a job, as after a deletion that was cut."""
    objects = closed_key(job), priority_key(job)
    parts = (*objects, input_prefix(job), output_prefix(job), quarantine_prefix(job))
    return any(True for part in parts for _ in store.keys(part))
