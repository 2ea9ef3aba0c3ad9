"""The objects in the store that mark jobs as closed, where they survive if Redis is emptied."""

from collections.abc import Iterator
from datetime import datetime

from common.job import sealed
from common.job.layout import closed_key
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


def possible_jobs(store: Store) -> Iterator[str]:
    """Yield the names of a store's folders that may be jobs; ``lost+found`` may not be read."""
    return (name for name in store.folders() if JOB_NAME.fullmatch(name))
