"""Jobs that are being staged, and those whose producer is gone."""

import logging
import time
from collections.abc import Mapping

from common.job.layout import opening_key
from common.job.manifest import find_job
from common.job.opening import find_opening
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.store import Store
from producer.scheduling.deletion import delete_job
from producer.scheduling.job_lock import job_lock
from producer.scheduling.one_by_one import OneByOne

log = logging.getLogger(__name__)

#: Seconds without a producer after which a job that is not staged is deleted. One that stood still,
#: as on a laptop that slept, may go on until then.
ABANDONED_SECONDS = 600.0

#: Seconds without a look after which a keeper knows no longer since when a job has no producer:
#: Redis may have been away for everyone, or another keeper have acted.
MAX_PAUSE_SECONDS = 60.0

#: The states of a job that may have been closed before it was staged to its end.
UNFINISHED_STATES = (JobState.CANCELLED, JobState.STOPPED)


class Unstaged:
    """The jobs of a store that are being staged, as a keeper sees them."""

    def __init__(self, store: Store, ledger: Ledger, one_by_one: OneByOne) -> None:
        self._store = store
        self._ledger = ledger
        self._one_by_one = one_by_one
        #: When each job last had a producer, as far as this keeper saw.
        self._had_producer: dict[tuple[str, float], float] = {}
        self._looked_at = 0.0

    def look(self, states: Mapping[str, tuple[JobState | None, float]]) -> None:
        """Open jobs whose producer ended right before, and delete those that it left unfinished.

        Also if they were cancelled, or stopped, since their producer ended.

        Args:
            states: the state and the time of submission of every job, by name.
        """
        now, had_producer = time.monotonic(), {}
        if now - self._looked_at > MAX_PAUSE_SECONDS:
            self._had_producer = dict.fromkeys(self._had_producer, now)
        self._looked_at = now
        for job, (state, created) in states.items():
            key = job, created
            was_closed = state in UNFINISHED_STATES and key in self._had_producer
            if state is not JobState.STAGING and not was_closed:
                continue
            with self._one_by_one(job):
                if self._ledger.locks.is_staging_held(job):
                    had_producer[key] = now
                elif not self._open(job, created):
                    since = self._had_producer.get(key, now)
                    if now - since >= ABANDONED_SECONDS:
                        self._delete(job, created)
                    else:
                        had_producer[key] = since
        self._had_producer = had_producer

    def _open(self, job: str, created: float) -> bool:
        """Open a job if all of it is in the store; return whether it is."""
        manifest = find_job(self._store, job)
        if manifest is None or manifest.created.timestamp() != created:
            return False
        self._ledger.jobs.grow(manifest, is_whole=True)
        self._store.delete(opening_key(job))
        return True

    def _delete(self, job: str, created: float) -> None:
        opening = find_opening(self._store, job)
        if opening is None or opening.created.timestamp() != created:
            return  # it is another store's
        with job_lock(self._ledger, job) as hold:
            if find_job(self._store, job) is None:
                delete_job(self._store, self._ledger, job, hold, created=created)
                log.warning(
                    "The producer of job %s ended while it staged the input: the job was deleted. "
                    "Submit its input again.",
                    job,
                )
