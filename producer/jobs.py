"""A job's way into the queue: opened in the ledger, its batches published, lost ones again."""

import logging
from collections import Counter
from collections.abc import Sequence

from celery import Celery

from common.batchfile import decode_batch
from common.broker import publish, queue_name
from common.layout import input_key
from common.ledger import JobState, Ledger, OnInstability
from common.manifest import Manifest
from common.messages import BatchResult, Instability, Status
from common.modeltable import ModelSource
from common.quarantine import read_quarantine
from common.rungs import NEXT_RUNG, Rung, ladder
from common.shard import open_embedding_file
from common.store import Store
from producer.shards import shards_of

log = logging.getLogger(__name__)


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
        for index, shards in stored.items():
            restore_batch(store, ledger, manifest, index, shards)
    ledger.resume(manifest.job, on_instability)
    return publish(app, model_of(manifest), ledger.outstanding(manifest))


def restore_batch(
    store: Store,
    ledger: Ledger,
    manifest: Manifest,
    index: int,
    shards: Sequence[tuple[Rung, str]],
) -> None:
    """Report a batch's shards, in the ladder's order, to a ledger that does not know of them.

    Where a rung's shard is missing or damaged, that rung is what is to be done next, whatever was
    made of its rows at a higher one.
    """
    before: BatchResult | None = None
    for rung, key in shards:
        if rung is not (manifest.rung if before is None else before.next):
            continue
        try:
            result, weights = result_of_shard(store, manifest, index, rung, key, before)
        except (OSError, KeyError, ValueError) as error:
            log.warning("%s/%s cannot be read (%s): it is computed anew.", store.url, key, error)
            return
        ledger.pin_weights(manifest.job, weights)
        ledger.complete(result)
        before = result


def result_of_shard(
    store: Store,
    manifest: Manifest,
    index: int,
    rung: Rung,
    key: str,
    before: BatchResult | None,
) -> tuple[BatchResult, str]:
    """What the worker reported when it wrote this shard, as far as it can be told, and the
    fingerprint of its weights.
    """
    with store.open(key) as path, open_embedding_file(path) as file:
        rows = {int(row) for row in file["rows"][:]}
        tokens = int(file.attrs["tokens"])
        precision = Rung(file.attrs["precision"])
        weights = str(file.attrs["weights"])
    expected = manifest.batch_records[index] if before is None else len(before.unstable)
    unstable: tuple[Instability, ...] = ()
    if len(rows) < expected:
        unstable = unstable_rows(store, manifest, index, rows, before)
    result = BatchResult(
        job=manifest.job,
        index=index,
        rung=rung,
        after=None if before is None else before.rung,
        status=Status.NUMERICAL_INSTABILITY if unstable else Status.OK,
        worker="store",
        precision=precision,
        records=len(rows),
        tokens=tokens,
        unstable=unstable,
        next=NEXT_RUNG[precision] if unstable else None,
    )
    return result, weights


def unstable_rows(
    store: Store, manifest: Manifest, index: int, rows: set[int], before: BatchResult | None
) -> tuple[Instability, ...]:
    """The rows that a rung tried and that its shard does not have."""
    if before is not None:
        return tuple(bad for bad in before.unstable if bad.row not in rows)
    known = {bad.row: bad for bad in read_quarantine(store, manifest.job, index)}
    records = decode_batch(store.get(input_key(manifest.job, index)))
    return tuple(
        known.get(record.row)
        or Instability(
            row=record.row, id=record.id, length=manifest.form.embedded(len(record.residues))
        )
        for record in records
        if record.row not in rows
    )


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
