"""Writing the objects of a staging's batches: inputs, copies, and rows of earlier jobs."""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.bounded_map import bounded_map
from common.embeddings.seal import Label
from common.job.copy_lines import encode_copies
from common.job.digests import Digests, digests_of
from common.job.layout import reused_key
from common.job.records import encode_batch
from common.job.reused import write_reused
from common.store import Store
from producer.input.batches import BatchSize, CutBatch, Reused
from producer.submission.earlier import EarlierRows
from producer.submission.input_objects import write_batch
from producer.submission.request import Request


class StagedBatch(NamedTuple):
    """What is known of a batch whose objects are written."""

    size: BatchSize
    first_row: int
    input_crc32: int
    copies_crc32: int


class EncodedBatch(NamedTuple):
    """A batch whose objects are to be written."""

    number: int
    first_row: int
    records: bytes
    copies: bytes
    reused: list[Reused]
    size: BatchSize


class ReusedRows(NamedTuple):
    """Rows of a batch that earlier jobs have computed."""

    rows: NDArray[np.int64]
    headers: list[str]
    places: NDArray[np.int64]  # among the rows of earlier jobs
    digests: Digests  # of their sequences


@dataclass(frozen=True)
class BatchWriter:
    """The writer of a job's batches."""

    store: Store
    request: Request
    job: str
    staging: str
    earlier: EarlierRows | None  # that have the rows of earlier jobs
    keep: Callable[[], None]  # called before each batch is written; raises if it must not be
    #: Held while rows of earlier jobs are in memory: those of one batch are enough.
    taking: Lock = field(default_factory=Lock)

    def write_all(self, batches: Iterable[CutBatch]) -> Iterator[StagedBatch]:
        """Write the objects of each batch, several batches at once; yield them in order."""
        with cycle_collection_off():
            yield from bounded_map(self._write, encoded(batches), self.store.parallel_writes)

    def _write(self, batch: EncodedBatch) -> StagedBatch:
        self.keep()
        checksums = self.write(batch.number, batch.records, batch.copies)
        if batch.reused:
            self.write_reused(batch.number, reused_rows(batch.reused))
        return StagedBatch(batch.size, batch.first_row, *checksums)

    def write(self, index: int, records: bytes, copies: bytes) -> tuple[int, int]:
        """Write the input object of a batch, and that of its copies; see ``write_batch``."""
        return write_batch(self.store, self.job, self.staging, index, records, copies)

    def write_reused(self, index: int, reused: ReusedRows) -> None:
        """Write the rows of a batch that earlier jobs have computed."""
        with self.taking:
            self._write_reused(index, reused)

    def _write_reused(self, index: int, reused: ReusedRows) -> None:
        assert self.earlier is not None
        self.keep()  # this thread may have waited for others
        part = self.earlier.take(reused.places)
        attributes = self.earlier.attributes
        self.keep()
        write_reused(
            self.store,
            reused_key(self.job, index, self.staging),
            Label(
                job=self.job,
                batch=index,
                rung=self.request.rung,
                precision=self.request.rung,
                tokens=0,
                records=len(reused.rows),
                weights=str(attributes["weights"]),
            ),
            self.request.form,
            part.with_names(reused.rows, reused.headers),
            reused.digests,
            attributes,
        )


def reused_rows(reused: list[Reused]) -> ReusedRows:
    """Return records that earlier jobs have computed, as they are written."""
    records = [record for record, _ in reused]
    return ReusedRows(
        np.array([record.row for record in records], np.int64),
        [record.header for record in records],
        np.array([place for _, place in reused], np.int64),
        digests_of(record.residues for record in records),
    )


def encoded(batches: Iterable[CutBatch]) -> Iterator[EncodedBatch]:
    """Yield batches with their bytes.

    Not the writing threads encode them: here the records are still in the core's cache.
    """
    for index, (records, copies, size, reused) in enumerate(batches):
        first_row, data = records[0].row, encode_batch(records)
        yield EncodedBatch(index, first_row, data, encode_copies(copies), reused, size)


@contextmanager
def cycle_collection_off() -> Iterator[None]:
    """Turn the cyclic garbage collector off: there are very many records, without any cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
