"""One job of a fleet: looking at it, ending it, and having its embeddings."""

from contextlib import suppress

import numpy as np

from common.advice import how_to
from common.errors import JobEndedError, UnknownJobError, UserError
from common.ledger.progress import JobState, OnInstability, Progress
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.store import StoreError
from common.wire.messages import Priority
from producer.fleet.running_job import RunningJob
from producer.output.verify import damaged_shards, delete_damaged
from producer.scheduling.closed import mark_closed
from producer.scheduling.deletion import (
    Size,
    delete_job,
    find_to_delete,
    job_is_running,
    size_of,
)
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.job_lock import job_lock
from producer.scheduling.observation import observe
from producer.scheduling.opening import open_job
from producer.scheduling.priority import set_priority
from producer.scheduling.retry import retry_quarantined
from producer.submission.same_weights import check_same_files


class Job(RunningJob):
    """One submitted job."""

    def status(self) -> Progress:
        """Return the job's counters at this moment.

        Raises:
            UnknownJobError: Redis does not know the job.
        """
        progress = self.fleet.ledger.jobs.progress(self.name)
        if progress is None:
            raise UnknownJobError(
                f"Redis knows no job {self.name!r}. If its store has it: "
                f"{how_to('resume', self.name)}"
            )
        return progress

    def why_waiting(self, progress: Progress | None = None) -> str:
        """Return why the job does not go on, and what to do; empty if it does, or has ended.

        Args:
            progress: the job's counters at this moment; None: look them up.

        Raises:
            UnknownJobError: Redis does not know the job.
        """
        progress = progress or self.status()
        found = observe(self.fleet.ledger, progress, Speed(), is_local=self.fleet.is_local)
        return diagnose(found)

    def cancel(self) -> None:
        """Stop the job: none of its batches are handed out any more; ``resume`` undoes it.

        Raises:
            JobEndedError: the job is finished.
            UnknownJobError: Redis does not know the job.
        """
        self.status()
        if self.fleet.ledger.jobs.cancel(self.name) is JobState.FINISHED:
            raise JobEndedError(f"Job {self.name} is finished: there is nothing to cancel.")

    def resume(self, *, on_instability: OnInstability | None = None) -> int:
        """Queue again what is not done, whatever ended the job, without the input.

        Args:
            on_instability: what to do with an embedding that is not finite; None: as before.

        Returns:
            Batches that are neither done nor running.

        Raises:
            UnknownJobError: the store has no such job.
            UserError: on a fleet of one machine: the model's files have changed since.
        """
        fleet, manifest = self.fleet, self.manifest
        if fleet.is_local:
            check_same_files(manifest)
        if on_instability is None:
            stops = fleet.ledger.jobs.stops_at_instability(self.name)
            on_instability = "fail" if stops else "retry"
        fleet.start_worker(manifest.model, manifest.rung)
        return open_job(fleet.store, fleet.ledger, fleet.publisher, manifest, on_instability)

    def set_priority(self, priority: Priority | str) -> int:
        """Give the job another priority: ``high``, ``normal`` or ``low``.

        It holds for the batches to come, and for those that wait in the queues; the ones that run
        go on.

        Returns:
            Number of waiting batches that were moved.

        Raises:
            JobEndedError: the job is finished.
            UserError: there is no such priority, or workers would refuse what is signed here.
        """
        if priority not in set(Priority):
            raise UserError(f"priority: {priority!r} is none of {', '.join(Priority)}.")
        fleet, progress = self.fleet, self.status()
        return set_priority(
            *(fleet.store, fleet.ledger, fleet.publisher),
            self.manifest,
            progress,
            Priority(priority),
        )

    def retry(self, *, quarantined: bool = False, damaged: bool = False) -> int:
        """Try again what failed, without the input.

        Args:
            quarantined: sequences without an embedding too, at the next rung.
            damaged: batches of which a shard cannot be used too; all are read to find them.

        Returns:
            Batches that are neither done nor running.

        Raises:
            JobEndedError: the job was cancelled or stopped.
        """
        fleet, manifest = self.fleet, self.manifest
        progress = fleet.ledger.jobs.progress(self.name)
        if progress is not None and progress.state in (JobState.CANCELLED, JobState.STOPPED):
            raise JobEndedError(
                f"Job {self.name} is {progress.state}. To resume it: {how_to('resume', self.name)}"
            )
        left = self.resume()
        if damaged and self._delete_damaged():
            left = self.resume()
        if quarantined:
            left += retry_quarantined(fleet.store, fleet.ledger, fleet.publisher, manifest)
        return left

    def _delete_damaged(self) -> bool:
        """Delete the shards that cannot be used of batches that are done; return if there are any.

        They are looked for without the job's lock, which lasts a minute.
        """
        store, manifest, ledger = self.fleet.store, self.manifest, self.fleet.ledger
        settled = list(ledger.batches.settled(manifest, np.zeros(manifest.batches, np.bool_)))
        found = [batch for batch, _ in damaged_shards(store, manifest, settled)]
        if found:
            with job_lock(ledger, self.name) as hold:
                delete_damaged(store, manifest, found, hold)
        return bool(found)

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that run batches of the job at this moment."""
        owners = self.fleet.ledger.leases.owners(self.name)
        names = {owner.rpartition("/")[0] for owner in owners}
        return [worker for worker in self.fleet.workers() if worker.name in names]

    def check_deletable(self) -> None:
        """Check that ``delete(running=False)`` will delete the job.

        Raises:
            JobRunningError: it is neither finished nor cancelled, or that is not known.
            UnknownJobError: neither Redis nor the store knows it, or they know different jobs.
        """
        find_to_delete(self.fleet.store, self.fleet.ledger, self.name, running=False)

    def delete(self, *, running: bool = True) -> Size:
        """Delete the job from Redis and from the store; return what was deleted there.

        Args:
            running: whether to delete it even if it is neither finished nor cancelled.

        Raises:
            JobRunningError: it is neither, or that is not known, and ``running`` is false.
            UnknownJobError: neither Redis nor the store knows it, or they know different jobs.
        """
        ledger, store, job = self.fleet.ledger, self.fleet.store, self.name
        with job_lock(ledger, job) as hold:
            known, created = find_to_delete(store, ledger, job, running=running)
            size = size_of(store, job)
            if running:
                ledger.jobs.cancel(job)
            elif known is not None:
                with suppress(StoreError):  # which may be full
                    # So that a deletion that is cut can be repeated: Redis forgets the job first.
                    mark_closed(store, ledger, job, known.state, known.created)
                if not ledger.jobs.forget(job, created, only_closed=True):
                    raise job_is_running(job)
            is_marked = not running and known is None and created is not None
            delete_job(store, ledger, job, hold, created=created, only_closed=is_marked)
        return size
