"""A ledger made anew from the store: every shard says what its worker reported."""

import logging
from itertools import chain

import numpy as np

from common.bounded_map import bounded_map
from common.embeddings.reader import UNREADABLE, DamagedError, open_embedding_file
from common.errors import UserError
from common.job.layout import input_key, shard_key
from common.job.manifest import Manifest
from common.job.quarantine import read_quarantine
from common.job.records import decode_batch
from common.ledger.ledger import Ledger
from common.rungs import NEXT_RUNG, Rung
from common.store import ObjectNotFoundError, Store, StoreError
from common.wire.messages import Batch, BatchResult, Instability, Status, retry_of

log = logging.getLogger(__name__)

#: Batches that are counted together, and those of them that are read at once, at least.
TOGETHER, AT_ONCE = 128, 16


def restore(store: Store, ledger: Ledger, manifest: Manifest) -> list[Batch]:
    """Count all that the store has of a job and its ledger does not. See ``restore_some``."""
    retries = []
    while ledger.batches.has_stored(manifest.job):
        retries += restore_some(store, ledger, manifest)
    return retries


def restore_some(store: Store, ledger: Ledger, manifest: Manifest) -> list[Batch]:
    """Report the shards of some batches to a ledger that does not know of them.

    Nothing in the store is changed. A shard that is damaged or another batch's is replaced by the
    worker that computes it anew; to delete it here could hit the good one of a worker that just
    was faster. Who does this at the same time, or is interrupted, does no harm.

    Returns:
        What is to be done at higher rungs.
    """
    indices = np.flatnonzero(ledger.batches.stored(manifest))[:TOGETHER].tolist()

    def read(index: int) -> list[tuple[BatchResult, str]]:
        return results_of_batch(store, manifest, index)

    found = list(bounded_map(read, indices, max(AT_ONCE, store.parallel_reads)))
    results = list(chain.from_iterable(found))
    if results:
        ledger.jobs.pin_weights(manifest.job, results[0][1])
        ledger.results.complete_all(result for result, _ in results)
    ledger.batches.set_counted(manifest.job, indices)
    last = [batch[-1][0] for batch in found if batch]
    return [retry_of(manifest.batch(result.index), result) for result in last if result.next]


def results_of_batch(store: Store, manifest: Manifest, index: int) -> list[tuple[BatchResult, str]]:
    """What a batch's workers reported, in the ladder's order, with the weights of each.

    Where a rung's shard is missing or damaged, that rung is what is to be done next, whatever was
    made of its rows at a higher one.

    Raises:
        StoreError: the store is away.
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
        except (*UNREADABLE, UserError) as error:
            if isinstance(error, StoreError):
                raise
            log.warning("%s/%s cannot be read (%s): it is computed anew.", store.url, key, error)
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
    """What the worker reported when it wrote this shard, as far as it can be told, and the
    fingerprint of its weights. Of a shard with all rows only the number of them is read.

    Raises:
        UNREADABLE: the shard is damaged, or is of something else than its name says.
    """
    expected = manifest.batch_records[index] if before is None else len(before.unstable)
    with store.open_ranges(key) as part, open_embedding_file(part) as file:
        place = str(file.attrs["job"]), int(file.attrs["batch"])
        tokens = int(file.attrs["tokens"])
        precision = Rung(file.attrs["precision"])
        weights = str(file.attrs["weights"])
        records = len(file["rows"])
        rows = set(file["rows"][:].tolist()) if records < expected else None
    if place != (manifest.job, index):
        raise DamagedError(f"it is of batch {place[1]} of {place[0]}")
    if records > expected:
        raise DamagedError(f"it has {records:,} rows instead of {expected:,}")
    missing = () if rows is None else missing_rows(store, manifest, index, rows, before)
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
        precision=precision,
        records=records,
        tokens=tokens,
        unstable=unstable,
        next=NEXT_RUNG[precision] if unstable else None,
    )
    return result, weights


def missing_rows(
    store: Store, manifest: Manifest, index: int, rows: set[int], before: BatchResult | None
) -> tuple[Instability, ...]:
    """The rows that a rung was given and that its shard does not have.

    Raises:
        DamagedError: the shard has rows that were not to be tried.
    """
    known = {bad.row: bad for bad in read_quarantine(store, manifest.job, index)}
    given = rows_of_batch(store, manifest, index) if before is None else before.unstable
    foreign = rows - {row.row for row in given}
    if foreign:
        raise DamagedError(f"it has rows of another batch, row {min(foreign)} first")
    return tuple(known.get(row.row, row) for row in given if row.row not in rows)


def rows_of_batch(store: Store, manifest: Manifest, index: int) -> tuple[Instability, ...]:
    """All rows of a batch."""
    return tuple(
        Instability(
            row=record.row, id=record.id, length=manifest.form.embedded(len(record.residues))
        )
        for record in decode_batch(store.get(input_key(manifest.job, index)))
    )
