"""A large job, whose first batches are computed while later ones are staged."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from redis.exceptions import RedisError

from common.errors import JobEndedError
from common.job.layout import opening_key
from common.job.manifest import Manifest
from common.job.opening import write_opening
from common.job.shards import shards_of
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, OnInstability
from common.store import Store
from producer.scheduling.deletion import delete_job
from producer.scheduling.opening import (
    batches_left,
    job_queue,
    open_job,
    stored_flags,
    submitted_again,
)
from producer.scheduling.publisher import Publisher
from producer.scheduling.stored_priority import with_stored_priority

#: Seconds of staging after which a job is opened, and from then on between two portions of batches.
#: One that is staged sooner is opened as a whole.
PORTION_SECONDS = 1.0

#: The most of the staging's time that its portions may take.
MOST_OF_TIME = 0.05


class GrowingJob:
    """A job that is opened while it is staged; if the staging fails, nothing of it is left."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        publisher: Publisher,
        on_instability: OnInstability,
        now: Callable[[], datetime],
    ) -> None:
        """Begin to measure the time until the job is opened.

        Args:
            now: returns the time that the job has as that of its submission.
        """
        self._store = store
        self._ledger = ledger
        self._publisher = publisher
        self._on_instability = on_instability
        self._now = now
        self._next = time.monotonic() + PORTION_SECONDS
        #: The time of its submission, once it is open.
        self.created: datetime | None = None

    def is_due(self) -> bool:
        """Return whether it is time for another portion."""
        return time.monotonic() >= self._next

    @contextmanager
    def portion(self) -> Iterator[None]:
        """Time another portion, which is left to the next one if Redis does not answer."""
        began = time.monotonic()
        with suppress(RedisError):  # it may be restarting
            yield
        now = time.monotonic()
        self._next = now + max(PORTION_SECONDS, (now - began) / MOST_OF_TIME)

    def grow(self, manifest_at: Callable[[datetime], Manifest]) -> None:
        """Publish the batches so far, and open the job before the first ones.

        Args:
            manifest_at: returns the manifest so far, of a job that was submitted at a time.

        Raises:
            JobEndedError: the job was cancelled.
            RedisError: Redis does not answer.
            StoreError: its opening cannot be written.
        """
        self.created = self.created or self._now()
        manifest = manifest_at(self.created)
        write_opening(self._store, manifest)
        if self._add(manifest) is None:  # the first ones, or Redis was emptied: there may be shards
            self._create(manifest)
            if self._add(manifest) is None:
                raise submitted_again(manifest)
        self._publisher.top_up({manifest.job: manifest}, own=manifest.job)

    def _create(self, manifest: Manifest) -> None:
        queue = job_queue(with_stored_priority(self._store, manifest))
        stored = stored_flags(manifest, shards_of(self._store, manifest))
        self._ledger.jobs.create(
            manifest, queue, stored, staging=True, on_instability=self._on_instability
        )

    def add_last(self, manifest: Manifest) -> None:
        """Add the last batches to an open job; they are published once it has its manifest.

        Raises:
            JobEndedError: the job was cancelled.
        """
        if self.created is not None:
            self._add(manifest)

    def _add(self, manifest: Manifest) -> JobState | None:
        state = self._ledger.jobs.grow(manifest, is_whole=False)
        if state is JobState.CANCELLED:
            raise JobEndedError(
                f"Job {manifest.job} was cancelled while its input was staged: nothing of it is "
                "kept."
            )
        return state

    def finish(self, manifest: Manifest) -> int:
        """Open the whole of the job, which is in the store.

        Returns:
            Number of batches that are neither done nor running, at any rung.
        """
        if self._ledger.jobs.grow(manifest, is_whole=True) is None:  # Redis was emptied
            return open_job(
                self._store, self._ledger, self._publisher, manifest, self._on_instability
            )
        self._store.delete(opening_key(manifest.job))
        self._publisher.top_up({manifest.job: manifest}, own=manifest.job)
        retries = self._ledger.batches.retries(manifest)
        leased = self._ledger.leases.held(manifest.job)
        return batches_left(self._ledger, manifest, leased) + len(retries.keys() - leased)

    def drop(self, job: str, hold: Callable[[], None]) -> None:
        """Delete the job, of which not everything can be staged.

        Args:
            hold: renews the job's lock; raises if another process had it meanwhile.
        """
        if self.created is not None:
            created = self.created.timestamp()
            delete_job(self._store, self._ledger, job, hold, created=created)
