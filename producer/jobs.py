"""A job's way into the queue: opened in the ledger, its batches published, lost ones again."""

from collections import Counter

from celery import Celery

from common.broker import publish, queue_name
from common.ledger import JobState, Ledger, OnInstability
from common.manifest import Manifest
from common.messages import Status
from common.modeltable import ModelSource
from common.rungs import Rung, ladder
from common.store import Store
from producer.restore import restore
from producer.shards import shards_of


def model_of(manifest: Manifest) -> ModelSource:
    return ModelSource.parse(manifest.model)


def job_queue(manifest: Manifest) -> str:
    return queue_name(model_of(manifest), manifest.rung, manifest.rung)


def open_job(
    store: Store,
    ledger: Ledger,
    app: Celery,
    manifest: Manifest,
    on_instability: OnInstability = "retry",
) -> int:
    """Open a staged job, or go on with one: publish what is neither done nor under way.

    The store is the truth: a ledger that does not know the job, or counts as done what the store
    does not have, is made anew from the store. Batches that failed are tried again.

    Returns:
        Batches published.
    """
    for result in ledger.results(manifest.job):
        if result.status is Status.FAILED:
            ledger.reopen(result)
    # In this order: a worker that is at it writes a shard before the ledger counts it.
    counted = {(i, rung) for rung in ladder(manifest.rung) for i in ledger.done(manifest, rung)}
    stored = shards_of(store, manifest)
    if counted - {(index, rung) for index, shards in stored.items() for rung, _ in shards}:
        ledger.forget(manifest.job)
    if ledger.create(manifest, job_queue(manifest)):
        restore(store, ledger, manifest, stored)
    ledger.resume(manifest.job, on_instability)
    return publish(app, model_of(manifest), ledger.outstanding(manifest))


class LostWork:
    """Publishes again what was lost: leases that ran out, and messages that vanished.

    Redis gives a message out before it notes that it did: a worker that is killed between the two
    takes the message with it. Then its queue is empty, nobody holds a lease on the batch, and it
    is not done; if that stays so, what is outstanding in this queue is published again.
    """

    #: Looks in a row at an empty queue before its messages count as lost.
    PATIENCE = 20

    def __init__(self, ledger: Ledger, app: Celery, manifest: Manifest) -> None:
        self.ledger = ledger
        self.app = app
        self.manifest = manifest
        self._empty: Counter[Rung] = Counter()

    def look(self) -> int:
        """Republish what is lost; returns how many batches that were."""
        expired = self.ledger.expire_leases(self.manifest.job)
        if expired:
            retries = self.ledger.retries(self.manifest)
            first = self.manifest.rung
            batches = [
                self.manifest.batch(index) if rung is first else retries[index, rung]
                for index, rung in expired
                if rung is first or (index, rung) in retries
            ]
            return publish(self.app, model_of(self.manifest), batches)
        empty = self._empty_for_long()
        if not empty:
            return 0
        outstanding = self.ledger.outstanding(self.manifest)
        lost = (batch for batch in outstanding if batch.rung in empty)
        return publish(self.app, model_of(self.manifest), lost)

    def _empty_for_long(self) -> set[Rung]:
        """Rungs of the open job whose queue was empty at the last ``PATIENCE`` looks."""
        progress = self.ledger.progress(self.manifest.job)
        if progress is None or progress.state is not JobState.OPEN:
            return set()
        for rung, queue in progress.queues.items():
            self._empty[rung] = 0 if self.ledger.queued(queue) else self._empty[rung] + 1
        found = {rung for rung, looks in self._empty.items() if looks >= self.PATIENCE}
        for rung in found:
            self._empty[rung] = 0
        return found
