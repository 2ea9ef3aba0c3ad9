"""How many of each job's batches are sent to the queues, and which: never more than a mark."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from celery import Celery

from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, Progress
from common.model_specs import ModelSource
from common.settings import Settings
from common.wire.celery_app import make_celery, publish
from common.wire.messages import Batch
from common.wire.queues import Queues

#: So many of a job's first batches go before all that waits: a small job is not to wait for a
#: large one.
HEAD_START = 64

#: The part of the mark that is left to the head starts of jobs to come: one in so many.
RESERVE = 10


@dataclass(frozen=True)
class Demand:
    """What a job has in the queues, and what it could have there."""

    waiting: int  # published batches that nobody has begun
    unpublished: int


def portions(demands: Mapping[str, Demand], queued: int, mark: int) -> dict[str, int]:
    """How many batches of each job to publish, so that the jobs share the mark fairly.

    Args:
        demands: of all open jobs.
        queued: messages that wait in their queues, of any kind.
        mark: of messages in the queues.

    Returns:
        A number for each job that gets any. Their sum and ``queued`` are no more than ``mark``.
    """
    found = {}
    sharing = sum(bool(demand.waiting or demand.unpublished) for demand in demands.values())
    share = max(1, mark // max(1, sharing))  # or else many jobs would wait for each other
    room, bulk = mark - queued, mark - mark // RESERVE - queued
    # Those with the least waiting first, should there not be enough for all.
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
    """A feeder of the fleet that the settings name."""
    celery = make_celery(settings.broker_url, [], settings.message_keys())
    return Publisher(ledger, celery, settings.high_water)


class Publisher:
    """Publishes the batches of open jobs, portion by portion."""

    def __init__(self, ledger: Ledger, app: Celery, mark: int) -> None:
        self.ledger = ledger
        self.app = app
        self.mark = mark

    def feed(self, manifests: Mapping[str, Manifest]) -> int:
        """Publish what the queues have room for.

        Args:
            manifests: of the open jobs that are to be fed; others have their share too.

        Returns:
            Batches published.
        """
        found = {job: self.ledger.jobs.progress(job) for job in self.open_jobs()}
        jobs = {job: progress for job, progress in found.items() if progress is not None}
        queues = {queue for progress in jobs.values() for queue in progress.queues.values()}
        queued = {queue: Queues(self.ledger.redis).length(queue) for queue in queues}
        demands = {job: demand_of(progress) for job, progress in jobs.items()}
        count = 0
        for job, portion in portions(demands, sum(queued.values()), self.mark).items():
            if job in manifests:
                count += self._publish(manifests[job], jobs[job], portion)
        return count

    def open_jobs(self) -> list[str]:
        return [
            job for job, (state, _) in self.ledger.jobs.states().items() if state is JobState.OPEN
        ]

    def _publish(self, manifest: Manifest, progress: Progress, portion: int) -> int:
        end, batches = self._next(manifest, progress.published, portion)
        model = ModelSource.parse(manifest.model)
        # No more than once, or a large job that is short of batches would pass the others for ever.
        head = max(0, HEAD_START - progress.published)
        if head and Queues(self.ledger.redis).length(progress.queue):
            Queues(self.ledger.redis).move_to_front(
                progress.queue, publish(self.app, model, batches[:head])
            )
            publish(self.app, model, batches[head:])
        else:
            publish(self.app, model, batches)
        # In this order: what is published twice is no harm, what is not published would be.
        self.ledger.jobs.advance(manifest, end)
        return len(batches)

    def _next(self, manifest: Manifest, start: int, portion: int) -> tuple[int, list[Batch]]:
        """Up to ``portion`` batches from ``start`` that are neither done nor under way, and the
        cursor after them.
        """
        settled = self.ledger.batches.done(manifest, manifest.rung) | self.ledger.batches.stored(
            manifest
        )
        for index, rung in self.ledger.leases.held(manifest.job):
            settled[index] |= rung is manifest.rung
        left = np.flatnonzero(~settled[start:])[: portion + 1] + start
        end = manifest.batches if len(left) <= portion else int(left[portion])
        return end, [manifest.batch(index) for index in left[:portion].tolist()]
