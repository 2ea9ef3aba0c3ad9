"""The keeper: sees that every job goes on, whatever happens to workers, messages and Redis.

Any number of keepers may run, and every ``producer watch`` has one; for each store one acts at a
time, and the next takes over within seconds. What two of them do at once does no harm.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from common.errors import UserError
from common.job.layout import closed_key, job_prefix
from common.job.manifest import Manifest, find_job
from common.ledger.events import Event, EventKind
from common.ledger.leases import RENEW_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.locks import KEEPING_SECONDS
from common.ledger.progress import JobState
from common.model_specs import ModelSource
from common.store import ObjectNotFoundError, Store, StoreError
from common.wire.celery_app import publish
from common.wire.messages import Batch, Document
from common.wire.queues import Queues, batch_queue
from producer.scheduling.lost_messages import LostMessages
from producer.scheduling.opening import open_job
from producer.scheduling.publisher import Publisher
from producer.scheduling.restore import restore_some

log = logging.getLogger(__name__)

#: Seconds between a keeper's looks at the jobs, and between its looks for old ones.
STEP_SECONDS = 1.0
CLEAN_SECONDS = 3600.0


#: Of every job, and when it was submitted.
States = Mapping[str, tuple[JobState, float]]

#: States of a job that is not gone on with until somebody asks for it.
OVER = (JobState.CANCELLED, JobState.STOPPED, JobState.FINISHED)


class Closed(Document):
    """Beside a job in the store: that it is not to be gone on with, and since when."""

    state: JobState
    time: datetime


class Keeper:
    """Looks after the jobs of one store."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        feeder: Publisher,
        *,
        on_event: Callable[[Event], None] = lambda _event: None,
        keep: timedelta | None = None,
        only: str | None = None,
    ) -> None:
        """Look after a store's jobs.

        Args:
            feeder: publishes the batches of open jobs.
            on_event: is told what was lost.
            keep: for so long jobs that are over stay; None: for ever.
            only: the job to look for in the store if Redis is emptied, by a keeper that leaves its
                place to any other; None: all jobs.
        """
        self.store = store
        self.ledger = ledger
        self.feeder = feeder
        self.lost_messages = LostMessages(ledger)
        self.on_event = on_event
        self.keep = keep
        self.only = only
        self.name = uuid.uuid4().hex
        self.acting = False
        self._manifests: dict[tuple[str, float], Manifest | None] = {}
        self._closed: dict[str, JobState] = {}
        self.next_step = self._next_hold = self._next_clean = self._no_expiry_before = 0.0
        self._last_step = time.monotonic()

    def step(self) -> None:
        """Do what there is to do, if it is time to and no other keeper does it.

        Raises:
            RedisError: Redis is away; the next step goes on.
            StoreError: the store is.
        """
        now = time.monotonic()
        if now < self.next_step:
            return
        self.next_step = now + STEP_SECONDS
        if self.only is not None:
            self._find(self.only)  # who acts may be here for another job
        if not self._hold():
            return
        self._find_jobs()
        states = self.ledger.jobs.states()
        jobs = self._open_jobs(states)
        if now - self._last_step > RENEW_SECONDS:
            # Redis was away, or nobody looked: workers that are alive renew their claims first.
            self._no_expiry_before = now + RENEW_SECONDS + STEP_SECONDS
        if now >= self._no_expiry_before:
            for manifest in jobs.values():
                self._take_back_leases(manifest)
        for batch in self.lost_messages.look(jobs.values()):
            self._queue_again(EventKind.MESSAGE_LOST, batch, "its message vanished")
        self.feeder.feed(jobs)
        self._last_step = time.monotonic()
        self._count_stored(jobs.values())
        self._close_jobs(states)
        if self.keep is not None and now >= self._next_clean:
            self._next_clean = now + CLEAN_SECONDS
            self._closed.clear()  # a job that was submitted again may have lost its mark
            self._delete_old(datetime.now(UTC) - self.keep)

    def stop(self) -> None:
        """Let another keeper act at once."""
        self.ledger.locks.release_keeping(self.store.url, self.name)

    def _hold(self) -> bool:
        """Whether it is this keeper that acts."""
        if not self.acting or time.monotonic() >= self._next_hold:
            self._next_hold = time.monotonic() + KEEPING_SECONDS / 3
            self.acting = self.ledger.locks.hold_keeping(
                self.store.url, self.name, standby=self.only is not None
            )
        return self.acting

    # --- what there is ------------------------------------------------------------------------

    def _find_jobs(self) -> None:
        """Go on with jobs in the store that Redis knows nothing of: it is new, or was emptied."""
        if self.only is None and self.ledger.stores.is_new(self.store.url):
            for job in self.store.folders():
                self._find(job)
            self.ledger.stores.add(self.store.url)

    def _find(self, job: str) -> None:
        if self.ledger.jobs.progress(job) is not None or self._read_closed(job) is not None:
            return
        manifest = self._manifest(job)
        if manifest is not None:
            left = open_job(self.store, self.ledger, self.feeder, manifest, count_stored=False)
            log.warning("Redis did not know job %s: %d batches are to be done.", job, left)

    def _count_stored(self, manifests: Iterable[Manifest]) -> None:
        """Count some of what the store has of jobs that Redis had forgotten."""
        end = time.monotonic() + STEP_SECONDS
        for manifest in manifests:
            while self.ledger.batches.has_stored(manifest.job) and time.monotonic() < end:
                retries = restore_some(self.store, self.ledger, manifest)
                publish(self.feeder.app, ModelSource.parse(manifest.model), retries)

    def _open_jobs(self, states: States) -> dict[str, Manifest]:
        """The manifests of all open jobs of this store."""
        jobs = {
            (job, created) for job, (state, created) in states.items() if state is JobState.OPEN
        }
        # A job that was staged anew has another manifest under the same name.
        self._manifests = {
            key: self._manifests[key] if key in self._manifests else self._manifest(*key)
            for key in jobs
        }
        return {job: manifest for (job, _), manifest in self._manifests.items() if manifest}

    def _manifest(self, job: str, created: float | None = None) -> Manifest | None:
        """A job's manifest; None if this store has no such job, or one of another time: another
        store's job of the same name, or what is being submitted anew.
        """
        try:
            manifest = find_job(self.store, job)
        except UserError as error:
            if not is_of_one_job(error):
                raise
            log.error("Job %s is left alone: %s", job, error)
            return None
        if manifest is None or created not in (None, manifest.created.timestamp()):
            return None
        return manifest

    # --- what was lost ------------------------------------------------------------------------

    def _take_back_leases(self, manifest: Manifest) -> None:
        expired = self.ledger.leases.expire(manifest.job)
        if not expired:
            return
        retries = self.ledger.batches.retries(manifest)
        for index, rung, owner in expired:
            batch = manifest.batch(index) if rung is manifest.rung else retries.get((index, rung))
            if batch is not None:
                worker = owner.rpartition("/")[0] or None
                self._queue_again(EventKind.LEASE_LOST, batch, "its worker went away", worker)

    def _queue_again(
        self, kind: EventKind, batch: Batch, detail: str, worker: str | None = None
    ) -> None:
        """Note that a batch was lost, and have it be the next that is taken from its queue."""
        event = Event(
            event=kind,
            job=batch.job,
            batch=batch.index,
            rung=batch.rung,
            worker=worker,
            detail=f"{detail}: queued again",
        )
        self.ledger.events.add(event)
        self.on_event(event)
        # It has waited once; behind a queue of hours it would wait again.
        sent = publish(self.feeder.app, ModelSource.parse(batch.model), [batch])
        Queues(self.ledger.redis).move_to_front(batch_queue(batch), sent)

    # --- what is over -------------------------------------------------------------------------

    def _close_jobs(self, states: States) -> None:
        """Note which jobs are over. A store that takes no note is no reason not to keep jobs."""
        over = {job: state for job, (state, _) in states.items() if state in OVER}
        for job, state in over.items():
            if self._closed.get(job) is not state and self._manifest(job, states[job][1]):
                self._close(job, state)
        self._closed = over

    def _close(self, job: str, state: JobState) -> None:
        """Note in the store that one of its jobs is not open, should Redis forget it."""
        there = self._read_closed(job)
        if there is None or there.state is not state:
            closed = Closed(state=state, time=datetime.now(UTC))
            self.store.put(closed_key(job), closed.model_dump_json().encode())

    def _read_closed(self, job: str) -> Closed | None:
        try:
            return Closed.model_validate_json(self.store.get(closed_key(job)))
        except (ObjectNotFoundError, ValidationError):
            return None

    def _delete_old(self, before: datetime) -> None:
        """Delete the jobs that were over by then, from the store and from Redis."""
        states = self.ledger.jobs.states()
        for job in self.store.folders():
            closed = self._read_closed(job)
            if closed is None or closed.time >= before:
                continue
            ours = job in states and self._manifest(job, states[job][1]) is not None
            if not ours or states[job][0] in OVER:
                log.warning("Job %s is %s since %s: deleted.", job, closed.state, closed.time)
                if ours:
                    self.ledger.jobs.forget(job)
                self.store.delete(job_prefix(job))


def is_of_one_job(error: UserError) -> bool:
    """Whether it is one job's objects that are to blame; else the store is away, for all jobs."""
    return isinstance(error, ObjectNotFoundError) or not isinstance(error, StoreError)
