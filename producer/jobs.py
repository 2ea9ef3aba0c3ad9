"""A job's way into the queue: opened in the ledger, its batches published, lost ones again."""

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from common.broker import publish, queue_name
from common.layout import closed_key
from common.ledger import STAGING_SECONDS, Ledger, OnInstability
from common.manifest import Manifest
from common.messages import Status
from common.modeltable import ModelSource
from common.progress import JobState
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
) -> int | None:
    """Open a staged job, or go on with one: publish its first batches that are not done, as many as
    the queues have room for.

    The store is the truth: a ledger that does not know the job, or counts as done what the store
    does not have, is made anew from the store. Batches that failed are tried again.

    Args:
        hold: is called now and then while a ledger is made anew, which may take long.

    Returns:
        Batches that are neither done nor under way, at whatever rung; None if somebody else makes
        the ledger anew at this moment, and opens the job then.
    """
    progress, owner = ledger.progress(manifest.job), uuid.uuid4().hex
    if progress is not None and progress.state is JobState.RESTORING:
        if not ledger.hold_staging(manifest.job, owner):
            return None
        ledger.forget(manifest.job)  # who was at it is gone
    for result in ledger.results(manifest.job):
        if result.status is Status.FAILED:
            ledger.reopen(result)
    # In this order: a worker that is at it writes a shard before the ledger counts it.
    counted = {
        (index, rung)
        for rung in ladder(manifest.rung)
        for index in np.flatnonzero(ledger.done(manifest, rung)).tolist()
    }
    stored = shards_of(store, manifest)
    if counted - {(index, rung) for index, shards in stored.items() for rung, _ in shards}:
        ledger.forget(manifest.job)
    unknown = bool(stored) and ledger.progress(manifest.job) is None
    if unknown and not ledger.hold_staging(manifest.job, owner):
        return None
    state = JobState.RESTORING if stored else JobState.OPEN
    if ledger.create(manifest, job_queue(manifest), state):
        with restoring(ledger, manifest.job, owner) as hold_too:
            restore(store, ledger, manifest, stored, lambda: (hold(), hold_too()))
    store.delete(closed_key(manifest.job))
    ledger.resume(manifest.job, on_instability)
    leased = ledger.leased(manifest.job)
    retries = [b for b in ledger.retries(manifest).values() if (b.index, b.rung) not in leased]
    publish(feeder.app, model_of(manifest), retries)
    feeder.feed({manifest.job: manifest})
    done = ledger.done(manifest, manifest.rung)
    running = sum(rung is manifest.rung and not done[index] for index, rung in leased)
    return manifest.batches - int(done.sum()) - running + len(retries)


@contextmanager
def restoring(ledger: Ledger, job: str, owner: str) -> Iterator[Callable[[], None]]:
    """Be the only one who restores a job. Yields a function to call now and then."""
    held = -math.inf

    def hold() -> None:
        nonlocal held
        if time.monotonic() - held > STAGING_SECONDS / 12:
            held = time.monotonic()
            ledger.hold_staging(job, owner)

    hold()
    try:
        yield hold
    except BaseException:
        ledger.forget(job)  # known by half, it would do again what the store has
        raise
    finally:
        ledger.release_staging(job, owner)
