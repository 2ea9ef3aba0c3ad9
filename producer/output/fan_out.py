"""Batches with their copies: each row that is identical to an earlier one gets its vectors."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.job.copies import as_copy, copies_by_batch, read_copies
from common.job.copy_lines import Copy
from common.job.manifest import Manifest
from common.store import Store
from common.wire.messages import Instability
from producer.output.contents import Block
from producer.output.kept_rows import KeptRows, RowSet


@dataclass(frozen=True)
class Numbers:
    """The numbers of some copies."""

    rows: Array
    originals: Array

    @classmethod
    def of(cls, copies: list[Copy]) -> "Numbers":
        rows = np.array([copy.row for copy in copies], np.int64)
        return cls(rows, np.array([copy.original for copy in copies], np.int64))


class FanOut:
    """Gives the computed rows of a job's batches the copies of each batch.

    Batches come in any order in which each is after those that it ``needs``. What later batches
    need is kept in temporary files, about as large as the vectors of all rows that have copies in
    other batches; memory holds two bits for each row of the job.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        *,
        only: Set[int] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Read which rows have copies.

        Args:
            only: the rows that need vectors, if not all do; other copies have those of any row.
            folder: where the temporary files are; None: where such files usually are.

        Raises:
            UserError: the copies cannot be read.
        """
        self._store = store
        self._manifest = manifest
        self._only = None if only is None else np.array(sorted(only), np.int64)
        self._ready: dict[int, list[Copy]] = {}
        self._bad: dict[int, Instability] = {}  # by row
        self._originals = RowSet()
        for batch, copies in copies_by_batch(store, manifest):
            self._originals.add(self._needed_from_elsewhere(batch, Numbers.of(copies)))
        self._kept = KeptRows(self._originals.count(), folder)

    def close(self) -> None:
        """Delete the temporary files."""
        self._kept.close()

    def prepare(self, batch: int) -> None:
        """Read the copies of a batch before they are needed; may be called in another thread."""
        self._ready[batch] = self._read(batch)

    def needs(self, batch: int) -> set[int]:
        """Return the earlier batches that have the originals of a batch's copies.

        Raises:
            UserError: the copies cannot be read.
        """
        originals = self._needed_from_elsewhere(batch, Numbers.of(self._read(batch)))
        return {self._manifest.batch_of(original) for original in originals.tolist()}

    def whole(self, batch: int, part: Embeddings, quarantined: tuple[Instability, ...]) -> Block:
        """Return all rows of a batch in their order, and those that are quarantined.

        Args:
            part: all rows that were computed.
            quarantined: those of them without an embedding.

        Raises:
            OSError: the temporary files cannot be written.
            UserError: the copies cannot be read.
        """
        if not self._manifest.batch_copies:
            return part, quarantined
        self._keep(part, quarantined)
        copies = self._ready.pop(batch, None)
        copies = self._read(batch) if copies is None else copies
        if not copies:
            return part, quarantined
        numbers = Numbers.of(copies)
        source, places = self._source(batch, part, numbers)
        headers = part.headers + [copy.header for copy in copies]
        rows = np.concatenate([part.rows, numbers.rows])
        order = np.argsort(rows)
        own = np.arange(len(source) - len(part), len(source))
        places = np.concatenate([own, places])[order]
        whole = source.take(places).with_names(rows[order], [headers[i] for i in order.tolist()])
        bad = [*quarantined, *self._bad_copies(copies)]
        return whole, tuple(sorted(bad, key=lambda each: each.row))

    def _read(self, batch: int) -> list[Copy]:
        return read_copies(self._store, self._manifest, batch)

    def _needed_from_elsewhere(self, batch: int, copies: Numbers) -> Array:
        """Return the originals of some of a batch's copies that are in other batches."""
        if not len(copies.rows):
            return copies.originals
        elsewhere = copies.originals < self._manifest.batch_rows[batch]
        found: Array = np.unique(copies.originals[elsewhere & self._wanted(copies)])
        return found

    def _wanted(self, copies: Numbers) -> Array:
        """Return which of some copies need their vectors."""
        if self._only is None:
            return np.ones(len(copies.rows), np.bool_)
        return np.isin(copies.rows, self._only)

    def _keep(self, part: Embeddings, quarantined: tuple[Instability, ...]) -> None:
        """Keep what later copies need of a batch."""
        self._bad |= {bad.row: bad for bad in quarantined}
        needed = self._originals.has(part.rows)
        if needed.any():
            kept = part.select(needed)
            # All that are needed of a batch follow each other: it has all rows from its first on.
            self._kept.write(int(self._originals.positions(kept.rows[:1])[0]), kept)

    def _source(self, batch: int, part: Embeddings, copies: Numbers) -> tuple[Embeddings, Array]:
        """Return a batch with the rows of others that it needs, and where its copies' vectors are.

        Of copies that need none, it is any place.
        """
        originals = self._needed_from_elsewhere(batch, copies)
        source = part
        if len(originals):
            source = Embeddings.joined(
                [self._kept.read(self._originals.positions(originals)), part]
            )
        # The rows are in order: those of other batches are earlier ones.
        found = np.searchsorted(source.rows, copies.originals)
        places: Array = np.minimum(found, len(source) - 1)
        missing = (source.rows[places] != copies.originals) & self._wanted(copies)
        if missing.any():
            raise ValueError(f"batch {batch} has copies of rows that no batch before it has")
        return source, places

    def _bad_copies(self, copies: list[Copy]) -> Iterator[Instability]:
        """Yield those of some copies that are quarantined, because their originals are."""
        for copy in copies if self._bad else ():
            bad = self._bad.get(copy.original)
            if bad is not None:
                yield as_copy(bad, copy)
