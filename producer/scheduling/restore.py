"""Restoring a ledger from the store: every shard shows what its worker reported."""

import logging
from contextlib import suppress
from itertools import chain, islice

import numpy as np

from common.bounded_map import bounded_map
from common.embeddings.checksums import DamagedError
from common.embeddings.shards import open_shard, read_label
from common.errors import UserError
from common.job.inputs import read_input
from common.job.layout import output_prefix, shard_key
from common.job.manifest import Manifest
from common.job.quarantine import read_quarantine
from common.ledger.ledger import Ledger
from common.rungs import NEXT_RUNG, Rung
from common.store import ObjectNotFoundError, Store, StoreError
from common.wire.messages import Batch, BatchResult, Instability, Status, retry_of

log = logging.getLogger(__name__)

#: Number of batches counted in one call, and the least number of shards read at the same time.
BATCHES_PER_CALL, MIN_PARALLEL_READS = 128, 16

#: Number of shards of which one must be readable to tell a job's weights.
SAMPLED_SHARDS = 8


def restore(store: Store, ledger: Ledger, manifest: Manifest) -> list[Batch]:
    """Count all shards of a job that its ledger does not know of. See ``restore_some``."""
    retries = []
    while ledger.batches.has_stored(manifest.job):
        retries += restore_some(store, ledger, manifest)
    return retries


def restore_some(store: Store, ledger: Ledger, manifest: Manifest) -> list[Batch]:
    """Report the shards of some batches to a ledger that does not know of them.

    The store is not changed. A shard that is damaged or belongs to another batch is replaced by the
    worker that computes the batch again; deleting it here could delete the good shard of a worker
    that was faster. Several callers at once, or an interruption, do no harm.

    Returns:
        The retries that are still to be done at higher rungs.
    """
    indices = np.flatnonzero(ledger.batches.stored(manifest))[:BATCHES_PER_CALL].tolist()

    def read(index: int) -> list[tuple[BatchResult, str]]:
        return results_of_batch(store, manifest, index)

    found = list(bounded_map(read, indices, max(MIN_PARALLEL_READS, store.parallel_reads)))
    results = list(chain.from_iterable(found))
    if results:
        ledger.jobs.pin_weights(manifest, results[0][1])
        ledger.results.complete_all((result for result, _ in results), only_stored=True)
    ledger.batches.set_counted(manifest, indices)
    last = [batch[-1][0] for batch in found if batch]
    return [retry_of(manifest.batch(result.index), result) for result in last if result.next]


def results_of_batch(store: Store, manifest: Manifest, index: int) -> list[tuple[BatchResult, str]]:
    """Return the results of a batch in the ladder's order, each with its weights' fingerprint.

    They end before the first rung whose shard is missing or damaged: that rung is to be done next,
    even if shards of higher rungs exist.

    Raises:
        StoreError: the store is unreachable.
    """
    results: list[tuple[BatchResult, str]] = []
    rung: Rung | None = manifest.rung
    while rung is not None:
        before = results[-1][0] if results else None
        key = shard_key(manifest.job, index, rung)
        try:
            results.append(result_of_shard(store, manifest, index, rung, key, before))
        except ObjectNotFoundError:
            break
        except (DamagedError, UserError) as error:
            if isinstance(error, StoreError):
                raise
            log.warning(
                "%s/%s cannot be read (%s): it will be computed again.", store.url, key, error
            )
            break
        rung = results[-1][0].next
    return results


def result_of_shard(
    store: Store,
    manifest: Manifest,
    index: int,
    rung: Rung,
    key: str,
    before: BatchResult | None,
) -> tuple[BatchResult, str]:
    """Return the result that a worker reported with a shard, and its weights' fingerprint.

    Fields that the shard does not show have their default values. If it has all rows, its label is
    all that is read.

    Raises:
        DamagedError: the shard is damaged, or does not belong to the batch in its name.
        UserError: the batch's input object is damaged.
    """
    expected = manifest.batch_records[index] if before is None else len(before.unstable)
    label = read_label(store, key)
    if label.key != key:
        raise DamagedError(f"it belongs to batch {label.batch} of {label.job}")
    if label.created not in (None, manifest.created.timestamp()):
        raise DamagedError("it is of another staging of the job")
    if label.records > expected:
        raise DamagedError(f"it has {label.records:,} rows instead of {expected:,}")
    missing: tuple[Instability, ...] = ()
    if label.records < expected:
        with open_shard(store, key) as shard:
            rows = set(shard.file["rows"][:].tolist())
        missing = missing_rows(store, manifest, index, rows, before)
    unstable = tuple(bad for bad in missing if bad.reason is None)
    poisoned = tuple(bad for bad in missing if bad.reason is not None)
    status = Status.POISONED if poisoned else Status.OK
    result = BatchResult(
        job=manifest.job,
        index=index,
        rung=rung,
        previous_rung=None if before is None else before.rung,
        status=Status.NUMERICAL_INSTABILITY if unstable else status,
        worker="store",
        poisoned=poisoned,
        created=manifest.created.timestamp(),
        precision=label.precision,
        records=label.records,
        tokens=label.tokens,
        unstable=unstable,
        next=NEXT_RUNG[label.precision] if unstable else None,
    )
    return result, label.weights


def stored_weights(store: Store, manifest: Manifest) -> str | None:
    """Return the fingerprint of the weights in a job's shards; None if none can be read."""
    for key in islice(store.keys(output_prefix(manifest.job)), SAMPLED_SHARDS):
        with suppress(DamagedError):
            return read_label(store, key).weights
    return None


def missing_rows(
    store: Store, manifest: Manifest, index: int, rows: set[int], before: BatchResult | None
) -> tuple[Instability, ...]:
    """Return the rows that a rung was to compute and that its shard does not have.

    Raises:
        DamagedError: the shard has rows that this rung was not to compute.
    """
    known = {bad.row: bad for bad in read_quarantine(store, manifest.job, index)}
    given = rows_of_batch(store, manifest, index) if before is None else before.unstable
    foreign = rows - {row.row for row in given}
    if foreign:
        raise DamagedError(f"it has rows of another batch, row {min(foreign)} first")
    return tuple(known.get(row.row, row) for row in given if row.row not in rows)


def rows_of_batch(store: Store, manifest: Manifest, index: int) -> tuple[Instability, ...]:
    """Return all rows of a batch."""
    return tuple(
        Instability(
            row=record.row, id=record.id, length=manifest.form.embedded(len(record.residues))
        )
        for record in read_input(store, manifest, index)
    )
