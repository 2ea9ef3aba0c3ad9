"""Retrying quarantined rows."""

from collections.abc import Callable, Sequence

from common.job.copies import as_copy, copies_by_batch
from common.job.layout import quarantine_key, quarantine_prefix, shard_key
from common.job.manifest import Manifest
from common.job.quarantine import read_quarantine
from common.ledger.ledger import Ledger
from common.rungs import NEXT_RUNG
from common.store import Store
from common.wire.celery_app import publish
from common.wire.messages import Batch, BatchResult, Instability
from producer.scheduling.job_lock import job_lock
from producer.scheduling.opening import model_of
from producer.scheduling.publisher import Publisher
from producer.scheduling.restore import results_of_batch


def quarantined_batches(store: Store, manifest: Manifest) -> list[int]:
    """Return the batches that have quarantined rows."""
    keys = store.keys(quarantine_prefix(manifest.job))
    return [int(key.rpartition("/")[2].partition(".")[0]) for key in keys]


def quarantined_rows(store: Store, manifest: Manifest) -> list[Instability]:
    """Return a job's quarantined rows, in input order: those that are copies of others too."""
    batches = quarantined_batches(store, manifest)
    rows = [row for index in batches for row in read_quarantine(store, manifest.job, index)]
    rows += quarantined_copies(store, manifest, rows)
    return sorted(rows, key=lambda row: row.row)


def quarantined_copies(
    store: Store, manifest: Manifest, rows: Sequence[Instability]
) -> list[Instability]:
    """Return the copies of quarantined rows, each as its original is; all copies are read."""
    by_row = {row.row: row for row in rows}
    if not by_row:
        return []
    return [
        as_copy(by_row[copy.original], copy)
        for _, copies in copies_by_batch(store, manifest)
        for copy in copies
        if copy.original in by_row
    ]


def retry_quarantined(
    store: Store, ledger: Ledger, publisher: Publisher, manifest: Manifest
) -> int:
    """Publish the batches of all quarantined rows again.

    The rows are retried at the rung above the last one that was tried. If there is none above, that
    rung computes all of its rows again. Batches of which other rows are running are skipped.

    Returns:
        Number of batches published.

    Raises:
        JobLockedError: another process retries or deletes the job, or did meanwhile.
    """
    manifest = ledger.jobs.with_priority(manifest)
    batches: dict[int, Batch] = {}
    leased = {index for index, _ in ledger.leases.held(manifest.job)}
    with job_lock(ledger, manifest.job) as hold:
        for index in quarantined_batches(store, manifest):
            results = [result for result, _ in results_of_batch(store, manifest, index)]
            if index in leased or (results and results[-1].next is not None):
                continue
            _reopen(store, ledger, manifest, index, results, hold)
            batches[index] = manifest.batch(index)
    retries = ledger.batches.retries(manifest).values()
    batches |= {retry.index: retry for retry in retries if retry.index in batches}
    return publish(publisher.app, model_of(manifest), batches.values())


def _reopen(
    store: Store,
    ledger: Ledger,
    manifest: Manifest,
    index: int,
    results: Sequence[BatchResult],
    hold: Callable[[], None],
) -> None:
    """Count a batch as if none of its rows had been quarantined.

    Args:
        hold: raises if another had the job's lock since ``results`` were read.
    """
    hold()
    for result in reversed(results):
        ledger.results.reopen(result)
    store.delete(quarantine_key(manifest.job, index), hold)
    last = results[-1] if results else None
    if last is not None and (last.precision is None or NEXT_RUNG[last.precision] is None):
        store.delete(shard_key(manifest.job, index, last.rung), hold)
    ledger.results.complete_all(result for result, _ in results_of_batch(store, manifest, index))
