"""Deleting a job, so that a process that stops in the middle deletes nothing of a later one."""

from collections.abc import Callable

from common.job.layout import job_prefix, manifest_key
from common.ledger.ledger import Ledger
from common.store import Store
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
        created: when the job was staged, by the ledger. None: the ledger does not know it.

    Raises:
        JobLockedError: the job was resumed, or submitted again, before all of it was deleted.
    """

    def check() -> None:
        hold()
        found = ledger.jobs.progress(job)
        if created is not None and found is not None and found.created == created:
            raise JobLockedError(f"Job {job} was resumed while it was deleted: it stays.")

    hold()
    if created is not None and not ledger.jobs.forget(job, created, only_closed=only_closed):
        return False
    # First, so that nobody resumes what is about to go.
    store.delete(manifest_key(job), check)
    store.delete(job_prefix(job), check)
    return True
