"""The objects in the store that mark jobs as closed, where they survive if Redis is emptied."""

from collections.abc import Iterator
from datetime import datetime

from common.job import sealed
from common.job.layout import closed_key
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.store import ObjectNotFoundError, Store
from common.wire.messages import JOB_NAME, Document

#: States of a closed job, which only a user resumes.
CLOSED_STATES = (JobState.CANCELLED, JobState.STOPPED, JobState.FINISHED)


class Closed(Document):
    """The object that marks a job as closed: its state, and since when."""

    state: JobState
    time: datetime


def read_closed(store: Store, job: str) -> Closed | None:
    """Return the mark of a closed job; None if there is none, or it is unreadable."""
    try:
        return sealed.parse(Closed, store.get(closed_key(job)))
    except (ObjectNotFoundError, ValueError):
        return None


def mark_closed(
    store: Store, ledger: Ledger, job: str, state: JobState, created: float
) -> Closed | None:
    """Mark a job as closed in the store, where the mark survives if Redis is emptied.

    It may have been resumed, or staged again, since its state was read: before, or while this
    process stopped in the middle.

    Returns:
        The mark, also of an earlier call; None if the job is not in that state.
    """
    earlier = read_closed(store, job)
    if earlier is not None and earlier.state is state:
        return earlier
    seen = ledger.jobs.progress(job)
    if seen is None or (seen.state, seen.created) != (state, created):
        return None
    closed = Closed(state=state, time=ledger.now())
    store.put(closed_key(job), sealed.dump(closed))
    seen = ledger.jobs.progress(job)
    if seen is not None and (seen.state, seen.created) != (state, created):
        store.delete(closed_key(job))
    return closed


def possible_jobs(store: Store) -> Iterator[str]:
    """Yield the names of a store's folders that may be jobs; ``lost+found`` may not be read."""
    return (name for name in store.folders() if JOB_NAME.fullmatch(name))
