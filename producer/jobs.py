"""A job's way into the queue: opened in the ledger, its batches published, lost ones again."""

from collections.abc import Callable

import numpy as np

from common.broker import publish, queue_name
from common.layout import closed_key
from common.ledger import Ledger, OnInstability
from common.manifest import Manifest
from common.messages import Batch, Status, retry_of
from common.modeltable import ModelSource
from common.rungs import ladder
from common.store import Store
from producer.feeding import Feeder
from producer.restore import restore
from producer.shards import shards_of


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
        restore(store, ledger, manifest, stored, hold)
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
