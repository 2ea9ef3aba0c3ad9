"""The keeper, which keeps every job going whatever happens to workers, messages and Redis.

Any number of keepers may run, and every ``producer watch`` has one. For each store one acts at a
time; another takes over within seconds. Two that act at once do no harm.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from common.job.manifest import Manifest, find_job
from common.ledger.events import Event, EventKind
from common.ledger.leases import RENEW_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.locks import KEEPING_SECONDS
from common.ledger.progress import OPEN_STATES, JobState
from common.model_source import ModelSource
from common.store import Store, StoreError
from common.wire.celery_app import publish, publish_next
from common.wire.messages import Batch
from common.wire.queues import batch_queue
from producer.scheduling.closed import CLOSED_STATES, mark_closed, possible_jobs, read_closed
from producer.scheduling.lost_messages import LostMessages
from producer.scheduling.old_jobs import OldJobs
from producer.scheduling.opening import model_of, open_job
from producer.scheduling.priority import Priorities, would_accept
from producer.scheduling.publisher import Publisher
from producer.scheduling.restore import restore_some
from producer.scheduling.unstaged import Unstaged

if TYPE_CHECKING:
    from producer.scheduling.pod_costs import PodCosts  # with what only Kubernetes needs

log = logging.getLogger(__name__)

#: Seconds between two steps of a keeper.
STEP_SECONDS = 1.0

#: Seconds before a store is searched again in which not every job could be restored.
LOOK_AGAIN_SECONDS = 60.0

#: The state and the time of submission of every job, by name.
States = Mapping[str, tuple[JobState | None, float]]


class Keeper:
    """The keeper of one store's jobs."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        publisher: Publisher,
        *,
        on_event: Callable[[Event], None] = lambda _event: None,
        keep: timedelta | None = None,
        only: str | None = None,
    ) -> None:
        """Create a keeper, which does nothing until its first step.

        Args:
            publisher: publishes the batches of open jobs.
            on_event: receives an event for each batch that was lost.
            keep: how long closed jobs are kept; None: for ever.
            only: the one job to restore from the store if Redis was emptied. Such a keeper is on
                standby: it gives way to any other. None: all jobs.
        """
        self.store = store
        self.ledger = ledger
        self.publisher = publisher
        self.one_by_one = publisher.one_by_one
        self.lost_messages = LostMessages(ledger, self.one_by_one)
        self.priorities = Priorities(ledger, publisher)
        self.unstaged = Unstaged(store, ledger, self.one_by_one)
        self.on_event = on_event
        self.old_jobs = OldJobs(store, ledger, self.one_by_one, keep)
        self.only = only
        #: Sets the deletion costs of workers' pods; None: they are left alone.
        self.pod_costs: PodCosts | None = None
        self.name = uuid.uuid4().hex
        self.acting = False
        #: When the lock was last asked for, by ``time.monotonic``.
        self.held_at = 0.0
        self._manifests: dict[tuple[str, float], Manifest | None] = {}
        self._closed: dict[str, JobState] = {}
        self.next_step = self.next_look = self._next_hold = self._no_expiry_before = 0.0
        self._last_step = time.monotonic()

    def step(self) -> None:
        """Do one round of work, unless it is too early or another keeper is acting.

        Raises:
            RedisError: Redis is unreachable; the next step tries again.
            StoreError: the store is unreachable; the next step tries again.
        """
        now = time.monotonic()
        if now < self.next_step:
            return
        self.next_step = now + STEP_SECONDS
        if self.only is not None:
            self._restore_if_unknown(self.only)  # the acting keeper may be waiting for another job
        if not self._hold():
            return
        try:
            self._keep_jobs(now)
        except (RedisError, StoreError):
            self._delete_old_jobs()  # the store may be full
            raise
        self._delete_old_jobs()
        self._last_step = time.monotonic()  # to delete a large job is no pause of the keeper

    def _keep_jobs(self, now: float) -> None:
        self._restore_unknown_jobs()
        self.ledger.demand.renew(self.store.url)  # before what may fail or take long
        states = self.ledger.jobs.states()
        self.unstaged.look(states)
        jobs = self.priorities.applied(self._open_jobs(states))
        if now - self._last_step > RENEW_SECONDS:
            # After a pause (Redis was unreachable, or no keeper ran) leases may have expired whose
            # workers are alive: they get the time to renew them.
            self._no_expiry_before = now + RENEW_SECONDS + STEP_SECONDS
        if now >= self._no_expiry_before:
            for manifest in jobs.values():
                with self.one_by_one(manifest.job):
                    self._requeue_expired_leases(manifest)
        for batch in self._accepted(self.lost_messages.look(jobs.values())):
            with self.one_by_one(batch.job):
                self._requeue(EventKind.MESSAGE_LOST, batch, "its message was lost")
        self.publisher.top_up(jobs)
        if self.pod_costs is not None:
            opened = (job for job, (state, _) in states.items() if state in OPEN_STATES)
            self.pod_costs.look(opened, self.held_at)
        self._last_step = time.monotonic()
        self._count_stored(jobs.values())
        self._close_jobs(states)
        self.priorities.gather()  # last: what it may not do keeps no job from going on

    def stop(self) -> None:
        """Stop acting, so that another keeper can take over at once."""
        self.ledger.locks.release_keeping(self.store.url, self.name)

    def _hold(self) -> bool:
        """Take or renew the keeper's lock; return whether this keeper acts."""
        if not self.acting or time.monotonic() >= self._next_hold:
            self._next_hold = time.monotonic() + KEEPING_SECONDS / 3
            acted, asked, held_at = self.acting, time.monotonic(), self.held_at
            self.acting = self.ledger.locks.hold_keeping(
                self.store.url, self.name, standby=self.only is not None
            )
            if self.acting and not acted:
                self.old_jobs.look_anew()
            # Another may have held the lock in between, too, if it was renewed too late.
            held_throughout = acted and time.monotonic() < held_at + KEEPING_SECONDS
            if self.acting and not held_throughout and self.pod_costs is not None:
                self.pod_costs.look_anew()
            self.held_at = asked
            if self.acting and self.only is None:
                self.ledger.demand.note_store(self.store.url)
            if self.acting and self.old_jobs.keep is not None:
                self.ledger.stores.note_keep(self.store.url, self.old_jobs.keep)
        return self.acting

    # --- finding jobs -------------------------------------------------------------------------

    def _restore_unknown_jobs(self) -> None:
        """Reopen the jobs in the store that Redis does not know: it is new, or was emptied.

        If it is emptied during the look, the next step looks again; if a job met an error of the
        program, such as that it has no memory left, a later one does.
        """
        if self.only is not None or time.monotonic() < self.next_look:
            return
        if self.ledger.stores.is_new(self.store.url):
            errors = self.one_by_one.unexpected
            look = self.ledger.stores.begin_look(self.store.url)
            for job in possible_jobs(self.store):
                self._restore_if_unknown(job)
            if self.one_by_one.unexpected == errors:
                self.ledger.stores.end_look(self.store.url, look)
            else:
                self.next_look = time.monotonic() + LOOK_AGAIN_SECONDS

    def _restore_if_unknown(self, job: str) -> None:
        with self.one_by_one(job):
            if (
                self.ledger.jobs.progress(job) is not None
                or read_closed(self.store, job) is not None
            ):
                return
            manifest = find_job(self.store, job)
            if manifest is not None:
                left = open_job(
                    self.store, self.ledger, self.publisher, manifest, count_stored=False
                )
                log.warning("Redis did not know job %s: restored, %d batches left.", job, left)

    def _count_stored(self, manifests: Iterable[Manifest]) -> None:
        """Count, for a while, shards of jobs that Redis had forgotten."""
        end = time.monotonic() + STEP_SECONDS
        for manifest in manifests:
            with self.one_by_one(manifest.job):
                while self.ledger.batches.has_stored(manifest.job) and time.monotonic() < end:
                    retries = restore_some(self.store, self.ledger, manifest)
                    publish(self.publisher.app, ModelSource.parse(manifest.model), retries)

    def _open_jobs(self, states: States) -> dict[str, Manifest]:
        """Return the manifests of all open jobs of this store."""
        jobs = {
            (job, created) for job, (state, created) in states.items() if state is JobState.OPEN
        }
        # A job that was staged again has another manifest under the same name.
        self._manifests = {
            key: self._manifests[key] if key in self._manifests else self._manifest(*key)
            for key in jobs
        }
        return {job: manifest for (job, _), manifest in self._manifests.items() if manifest}

    def _manifest(self, job: str, created: float) -> Manifest | None:
        """Return a job's manifest; None if this store does not have the job, or it is unreadable.

        Args:
            created: when the job was submitted. A manifest of another time belongs to another
                store's job of the same name, or to a job that is being submitted again.
        """
        with self.one_by_one(job):
            manifest = find_job(self.store, job)
            if manifest is not None and manifest.created.timestamp() == created:
                model_of(manifest)  # a newer version may know models that this one does not
                return manifest
        return None

    # --- requeuing lost batches ---------------------------------------------------------------

    def _requeue_expired_leases(self, manifest: Manifest) -> None:
        expired = self.ledger.leases.expire(manifest.job)
        if not expired:
            return
        retries = self.ledger.batches.retries(manifest)
        for index, rung, owner in expired:
            batch = manifest.batch(index) if rung is manifest.rung else retries.get((index, rung))
            if batch is not None:
                worker = owner.rpartition("/")[0] or None
                self._requeue(EventKind.LEASE_LOST, batch, "its worker disappeared", worker)

    def _accepted(self, lost: Sequence[Batch]) -> Iterator[Batch]:
        """Yield the batches whose messages some worker would accept from this keeper.

        Others were refused and would be again. They are lost until workers have another key.
        """
        workers = self.ledger.workers.all() if lost else []
        for batch in lost:
            if would_accept(workers, batch_queue(batch), self.publisher.signs_with):
                yield batch

    def _requeue(
        self, kind: EventKind, batch: Batch, reason: str, worker: str | None = None
    ) -> None:
        """Record that a batch was lost, and publish it again at the front of its queue."""
        event = Event(
            event=kind,
            job=batch.job,
            batch=batch.index,
            rung=batch.rung,
            worker=worker,
            detail=f"{reason}; requeued",
        )
        self.ledger.events.add(event)
        self.on_event(event)
        publish_next(self.publisher.app, self.ledger.redis, batch)

    # --- closed jobs --------------------------------------------------------------------------

    def _close_jobs(self, states: States) -> None:
        """Mark in the store the jobs that were closed since the last step."""
        closed = {job: state for job, (state, _) in states.items() if state in CLOSED_STATES}
        for job, state in list(closed.items()):
            if self._closed.get(job) is state:
                continue
            if self.ledger.locks.is_staging_held(job):
                del closed[job]  # it may be staged to its end, and have a manifest then
            elif self._manifest(job, states[job][1]):
                with self.one_by_one(job):
                    mark = mark_closed(self.store, self.ledger, job, state, states[job][1])
                    if mark is not None:
                        self.old_jobs.note(job, mark.time)
        self._closed = closed

    def _delete_old_jobs(self) -> None:
        if self.old_jobs.delete_some():
            self._closed.clear()  # resubmitting a job deletes its "closed" object
