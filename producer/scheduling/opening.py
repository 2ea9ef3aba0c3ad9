"""Opening a job: creating it in the ledger and publishing its first batches."""

from collections.abc import Iterable

import numpy as np

from common.errors import UserError
from common.job.layout import closed_key, opening_key
from common.job.manifest import Manifest, find_job
from common.job.shards import shards_of
from common.ledger.batches import Flags
from common.ledger.ledger import Ledger
from common.ledger.progress import OnInstability
from common.model_source import ModelSource
from common.rungs import Rung, ladder
from common.store import Store
from common.wire.celery_app import publish
from common.wire.messages import Status
from common.wire.queues import queue_name
from producer.scheduling.publisher import Publisher
from producer.scheduling.restore import restore
from producer.scheduling.stored_priority import with_stored_priority


def model_of(manifest: Manifest) -> ModelSource:
    return ModelSource.parse(manifest.model)


def job_queue(manifest: Manifest) -> str:
    return queue_name(model_of(manifest), manifest.rung, manifest.rung, manifest.priority)


def open_job(
    store: Store,
    ledger: Ledger,
    publisher: Publisher,
    manifest: Manifest,
    on_instability: OnInstability = "retry",
    *,
    count_stored: bool = True,
) -> int:
    """Open a staged job or resume one, and publish batches while the queues have room.

    The store is the truth: if the ledger does not know the job, or counts batches as done that the
    store does not have, it is rebuilt from the store. Batches that failed are retried.

    Args:
        count_stored: whether to count at once the shards of a job that the ledger does not know;
            otherwise a keeper counts them, some in each step.

    Returns:
        Number of batches that are neither done nor running, at any rung.

    Raises:
        UserError: the ledger knows a later staging of the job.
    """
    for result in ledger.results.all(manifest.job):
        if result.status is Status.FAILED:
            ledger.results.reopen(result)
    # The ledger is read before the store: a worker writes a shard before the ledger counts it.
    counted = {
        (index, rung)
        for rung in ladder(manifest.rung)
        for index in np.flatnonzero(ledger.batches.done(manifest, rung)).tolist()
    }
    shards = shards_of(store, manifest)
    if counted - {(index, rung) for index, found in shards.items() for rung, _ in found}:
        ledger.jobs.forget(manifest.job, manifest.created.timestamp())
    stored = stored_flags(manifest, shards)
    forget_other_store(store, ledger, manifest)
    if not create_open(store, ledger, manifest, stored, on_instability):
        # Redis was emptied in between, unless the job was deleted or submitted again.
        known = ledger.jobs.progress(manifest.job)
        is_other = known is not None or find_job(store, manifest.job) != manifest
        if is_other or not create_open(store, ledger, manifest, stored, on_instability):
            raise submitted_again(manifest)
    store.delete(opening_key(manifest.job))
    store.delete(closed_key(manifest.job))
    manifest = ledger.jobs.with_priority(manifest)
    leased = ledger.leases.held(manifest.job)
    retries = [
        b for b in ledger.batches.retries(manifest).values() if (b.index, b.rung) not in leased
    ]
    publisher.top_up({manifest.job: manifest}, own=manifest.job)
    if count_stored:
        retries += restore(store, ledger, manifest)
    publish(publisher.app, model_of(manifest), retries)
    return batches_left(ledger, manifest, leased) + len(retries)


def batches_left(ledger: Ledger, manifest: Manifest, leased: set[tuple[int, Rung]]) -> int:
    """Return the number of batches that are neither done nor running at the first rung."""
    settled = ledger.batches.done(manifest, manifest.rung) | ledger.batches.stored(manifest)
    running = sum(rung is manifest.rung and not settled[index] for index, rung in leased)
    return manifest.batches - int(settled.sum()) - running


def create_open(
    store: Store,
    ledger: Ledger,
    manifest: Manifest,
    stored: Flags,
    on_instability: OnInstability,
) -> bool:
    """Create a job unless the ledger knows it, and resume it; False if another staging is known."""
    queue = job_queue(with_stored_priority(store, manifest))
    ledger.jobs.create(manifest, queue, stored)
    # Its producer may have ended right before. Resumed with fewer batches, it could finish.
    ledger.jobs.grow(manifest, is_whole=True)
    return ledger.jobs.resume(manifest, on_instability)


def stored_flags(manifest: Manifest, stored: Iterable[int]) -> Flags:
    """Return which batches of a job are among those that have a shard in the store."""
    flags = np.zeros(manifest.batches, bool)
    flags[list(stored)] = True
    return flags


def forget_other_store(store: Store, ledger: Ledger, manifest: Manifest) -> None:
    """Forget a later job of the same name, if it is another store's.

    Raises:
        UserError: it is this store's.
    """
    known = ledger.jobs.progress(manifest.job)
    if known is not None and known.created > manifest.created.timestamp():
        if find_job(store, manifest.job) != manifest:
            raise submitted_again(manifest)
        ledger.jobs.forget(manifest.job, known.created)


def submitted_again(manifest: Manifest) -> UserError:
    return UserError(
        f"Job {manifest.job} was deleted or submitted again meanwhile: run the command again, or "
        "submit the input again if the job is gone."
    )
