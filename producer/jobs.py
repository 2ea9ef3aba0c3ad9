"""A job's way into the queue: opened in the ledger, its batches published, lost ones again."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from common.batchfile import decode_batch
from common.broker import publish, queue_name
from common.layout import closed_key, input_key
from common.ledger import Ledger, OnInstability
from common.manifest import Manifest
from common.messages import Batch, BatchResult, Instability, Status, retry_of
from common.modeltable import ModelSource
from common.quarantine import read_quarantine
from common.rungs import NEXT_RUNG, Rung, ladder
from common.shard import open_embedding_file
from common.store import Store
from producer.feeding import Feeder
from producer.shards import shards_of

log = logging.getLogger(__name__)


def model_of(manifest: Manifest) -> ModelSource:
    return ModelSource.parse(manifest.model)


def job_queue(manifest: Manifest) -> str:
    return queue_name(model_of(manifest), manifest.rung, manifest.rung, manifest.priority)


def open_job(
    store: Store,
    ledger: Ledger,
    feeder: Feeder,
    manifest: Manifest,
    on_instability: OnInstability = "retry",
    hold: Callable[[], object] = lambda: None,
) -> int:
    """Open a staged job, or go on with one: publish its first batches that are not done, as many as
    the queues have room for.

    The store is the truth: a ledger that does not know the job, or counts as done what the store
    does not have, is made anew from the store. Batches that failed are tried again.

    Args:
        hold: is called now and then while a ledger is made anew, which may take long.

    Returns:
        Batches that are not done.
    """
    again = reopen_failed(ledger, manifest)
    # In this order: a worker that is at it writes a shard before the ledger counts it.
    counted = {
        (index, rung)
        for rung in ladder(manifest.rung)
        for index in np.flatnonzero(ledger.done(manifest, rung)).tolist()
    }
    stored = shards_of(store, manifest)
    if counted - {(index, rung) for index, shards in stored.items() for rung, _ in shards}:
        ledger.forget(manifest.job)
    if ledger.create(manifest, job_queue(manifest)):
        for index, shards in stored.items():
            restore_batch(store, ledger, manifest, index, shards)
            hold()
        again = list(ledger.retries(manifest).values())
    store.delete(closed_key(manifest.job))
    if ledger.resume(manifest.job, on_instability):
        again = list(ledger.retries(manifest).values())
    publish(feeder.app, model_of(manifest), again)
    feeder.feed({manifest.job: manifest})
    return int(manifest.batches - ledger.done(manifest, manifest.rung).sum()) + len(again)


def reopen_failed(ledger: Ledger, manifest: Manifest) -> list[Batch]:
    """Take the failed results of a job back; returns the batches to be tried again."""
    found = []
    for result in ledger.results(manifest.job):
        if result.status is Status.FAILED and ledger.reopen(result):
            before = result.after and ledger.result(manifest.job, result.index, result.after)
            batch = manifest.batch(result.index)
            found.append(retry_of(batch, before) if before else batch)
    return found


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
