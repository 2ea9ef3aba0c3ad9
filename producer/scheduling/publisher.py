"""Publishing the batches of open jobs, up to a high-water mark that the jobs share fairly."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES, Progress
from common.model_source import ModelSource
from common.settings import Settings
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Batch
from common.wire.queues import Queues
from common.wire.signing import MessageKeys
from producer.scheduling.one_by_one import OneByOne

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger(__name__)

#: Number of a job's first batches that go to the front of the queue, so that a small job does not
#: wait for a large one.
HEAD_START = 64

#: One message in this many of the high-water mark is reserved for the head starts of new jobs.
RESERVE = 10


@dataclass(frozen=True)
class Demand:
    """The number of batches that a job has in the queues, and that it could add."""

    waiting: int  # published batches that no worker has claimed
    unpublished: int


def portions(demands: Mapping[str, Demand], queued: int, high_water: int) -> dict[str, int]:
    """Return how many batches of each job to publish, so that the jobs share the queues fairly.

    Args:
        demands: the demands of all open jobs.
        queued: number of messages of any kind that wait in their queues.
        high_water: the largest number of waiting messages.

    Returns:
        A number for each job that gets any. With ``queued`` they add up to ``high_water`` at most.
    """
    found = {}
    sharing = sum(bool(demand.waiting or demand.unpublished) for demand in demands.values())
    # With more jobs than messages, each job still gets one at a time.
    share = max(1, high_water // max(1, sharing))
    room, bulk = high_water - queued, high_water - high_water // RESERVE - queued
    # Jobs with the least waiting first, in case there is not enough for all.
    for job, demand in sorted(demands.items(), key=lambda item: item[1].waiting):
        wanted = min(demand.unpublished, share - demand.waiting)
        head = min(wanted, HEAD_START, room) if demand.waiting == 0 else 0
        portion = max(head, min(wanted, bulk))
        if portion > 0:
            found[job] = portion
            room, bulk = room - portion, bulk - portion
    return found


def demand_of(progress: Progress) -> Demand:
    return Demand(progress.waiting, progress.batches - progress.published)


def publisher_of(settings: Settings, ledger: Ledger) -> "Publisher":
    """Return a publisher for the fleet that the settings name."""
    keys = settings.message_keys()
    log.info("%s", keys)
    celery = make_celery(settings.broker_url, [], keys)
    return Publisher(ledger, celery, settings.high_water)


class Publisher:
    """A publisher of the batches of open jobs, portion by portion."""

    def __init__(self, ledger: Ledger, app: "Celery", high_water: int) -> None:
        self.ledger = ledger
        self.app = app
        self.high_water = high_water
        self.one_by_one = OneByOne()

    @property
    def signs_with(self) -> str:
        """The name of the key that signs its messages; empty: none does."""
        keys: MessageKeys = self.app.conf.message_keys
        return keys.signs_with

    def top_up(self, manifests: Mapping[str, Manifest], *, own: str | None = None) -> int:
        """Publish as many batches as the queues have room for.

        Args:
            manifests: the manifests of the open jobs to publish for. The shares of other open jobs
                are kept free.
            own: the caller's own job, whose errors are raised.

        Returns:
            Number of batches published.
        """
        queued: dict[str, int] = {}
        jobs = self.open_jobs(queued, own)
        demands = {job: demand_of(progress) for job, progress in jobs.items()}
        count = 0
        for job, portion in portions(demands, sum(queued.values()), self.high_water).items():
            if job in manifests:
                with self._guard(job, own):
                    count += self._publish(manifests[job], jobs[job], portion)
        return count

    def open_jobs(self, queued: dict[str, int], own: str | None = None) -> dict[str, Progress]:
        """Return the open jobs that this version can read, and add the lengths of their queues."""
        found, queues = {}, Queues(self.ledger.redis)
        for job, (state, _) in self.ledger.jobs.states().items():
            if state in OPEN_STATES:
                with self._guard(job, own):
                    progress = self.ledger.jobs.progress(job)
                    if progress is not None:
                        queues.add_lengths(queued, progress.queues.values())
                        found[job] = progress
        return found

    def _guard(self, job: str, own: str | None) -> AbstractContextManager[None]:
        return nullcontext() if job == own else self.one_by_one(job)

    def _publish(self, manifest: Manifest, progress: Progress, portion: int) -> int:
        # The manifest's priority may have been changed.
        manifest = manifest.with_priority(progress.priority)
        end, batches = self._next(manifest, progress.published, portion)
        model = ModelSource.parse(manifest.model)
        # Only the job's first batches, or a large job whose batches run short would overtake the
        # others for ever.
        head = max(0, HEAD_START - progress.published)
        if head and Queues(self.ledger.redis).length(progress.queue):
            Queues(self.ledger.redis).move_to_front(
                progress.queue, publish(self.app, model, batches[:head])
            )
            publish(self.app, model, batches[head:])
        else:
            publish(self.app, model, batches)
        # The cursor moves after publishing: a batch published a second time does no harm, a batch
        # that is never published does.
        self.ledger.jobs.advance(manifest, end, signed_with=self.signs_with)
        return len(batches)

    def _next(self, manifest: Manifest, start: int, portion: int) -> tuple[int, list[Batch]]:
        """Return the next batches that are neither done nor running, and the cursor after them."""
        settled = self.ledger.batches.done(manifest, manifest.rung) | self.ledger.batches.stored(
            manifest
        )
        for index, rung in self.ledger.leases.held(manifest.job):
            settled[index] |= rung is manifest.rung
        left = np.flatnonzero(~settled[start:])[: portion + 1] + start
        end = manifest.batches if len(left) <= portion else int(left[portion])
        return end, [manifest.batch(index) for index in left[:portion].tolist()]
