"""A job's embeddings read from its shards in the store, without fetching a file."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from common.advice import how_to
from common.bounded_map import bounded_map
from common.embeddings.arrays import Array, Embeddings, not_included
from common.embeddings.origins import Origins
from common.embeddings.table import EmbeddingTable
from common.errors import UserError
from common.job.copies import read_copies
from common.job.layout import shard_key
from common.job.manifest import Manifest
from common.job.output_form import POOLED, RECORD_SCORES
from common.ledger.ledger import Ledger
from common.store import ObjectNotFoundError, Store
from common.text import counted_batches
from producer.output.contents import Block
from producer.output.fan_out import FanOut
from producer.output.job_shards import (
    SHARDS_AHEAD,
    attributes_of_file,
    attributes_of_job,
    check_order,
    merged,
    shards_by_batch,
)


class JobEmbeddings(EmbeddingTable):
    """The embeddings of a finished job; see ``Job.embeddings``."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Read a job's shards, without residues, which are read when they are asked for.

        Raises:
            UserError: batches have none, or one cannot be read.
        """
        self._store = store
        self._manifest = manifest
        self._keys = shards_by_batch(store, manifest)
        super().__init__(attributes_of_file(store, manifest, self._keys))
        self._in_memory = self._read()
        #: The batch whose residues were asked for last, and that whose copies were.
        self._latest: tuple[int, Embeddings] | None = None
        self._latest_copies: tuple[int, dict[int, int]] | None = None

    def __repr__(self) -> str:
        return f"JobEmbeddings({self._manifest.job!r}, {len(self):,} sequences)"

    def __len__(self) -> int:
        return self._manifest.report.records

    @property
    def origins(self) -> Origins | None:
        return self._manifest.origins

    def _column(self, name: str) -> Any:
        if name not in self._in_memory.columns:
            raise not_included(name)
        return self._in_memory.columns[name]

    def _read(self) -> Embeddings:
        """Return all rows, without their residues."""
        manifest = without_residues(self._manifest)

        fan_out = FanOut(self._store, manifest)

        def load(index: int) -> Block:
            fan_out.prepare(index)
            return merged(self._store, manifest, index, self._keys[index], self.attributes)

        parts, last_row = [], -1
        with closing(fan_out):
            for index, block in enumerate(bounded_map(load, range(manifest.batches), SHARDS_AHEAD)):
                part, _ = fan_out.whole(index, *block)
                last_row = check_order(manifest, self._keys[index], part, last_row)
                parts.append(part)
        return Embeddings.concatenate(parts, manifest.form, int(self.attributes["dim"]))

    def _residues_at(self, position: int, name: str) -> Array:
        self._check_included("per_residue" if name == "residues" else name)
        part, place = self._found_at(position)
        return part.residues_of(place, name)

    def _pairs_at(self, position: int, name: str) -> Array:
        self._check_included(name)
        part, place = self._found_at(position)
        return part.pairs_of(place, name)

    def _check_included(self, kind: str) -> None:
        if kind not in self._manifest.form.include:
            raise not_included(kind)

    def _found_at(self, position: int) -> tuple[Embeddings, int]:
        """Return the batch that computed a row, and where in it the row is."""
        batch = int(np.searchsorted(self._ends, position, side="right"))
        row = int(self.rows[position])
        original = self._originals(batch).get(row)
        if original is not None:
            row, batch = original, self._manifest.batch_of(original)
        part = self._batch(batch)
        return part, int(np.searchsorted(part.rows, row))

    @cached_property
    def _ends(self) -> Array:
        """The position after the last row of each batch."""
        manifest = self._manifest
        return np.cumsum([manifest.rows_of(index) for index in range(manifest.batches)])

    def _originals(self, batch: int) -> dict[int, int]:
        """Return the original of each copy of a batch."""
        if self._latest_copies is None or self._latest_copies[0] != batch:
            with self._still_there():
                copies = read_copies(self._store, self._manifest, batch)
            self._latest_copies = batch, {copy.row: copy.original for copy in copies}
        return self._latest_copies[1]

    def _batch(self, index: int) -> Embeddings:
        if self._latest is None or self._latest[0] != index:
            keys = self._keys[index]
            with self._still_there():
                part, _ = merged(self._store, self._manifest, index, keys, self.attributes)
            self._latest = index, part
        return self._latest[1]

    @contextmanager
    def _still_there(self) -> Iterator[None]:
        """Raise UserError if an object that is read is gone."""
        try:
            yield
        except ObjectNotFoundError as error:
            raise UserError(
                f"The residues of {self._manifest.job} are no longer in {self._store.url}: the "
                "job was deleted, or its fleet of one machine was closed."
            ) from error


class BatchStream:
    """The batches of a job that is under way, each once, as they complete.

    One with copies of rows of others comes once these are complete, too.
    """

    def __init__(self, store: Store, ledger: Ledger, manifest: Manifest) -> None:
        """Begin a stream.

        Raises:
            UserError: the job keeps no mean vectors, or its copies cannot be read.
        """
        if "mean" not in manifest.form.include:
            raise not_included("mean")
        self._store = store
        self._ledger = ledger
        self._manifest = without_residues(manifest)
        self._fan_out = FanOut(store, self._manifest)
        self._needs: dict[int, set[int]] = {}  # of batches that are complete, but did not come
        self._came = np.zeros(manifest.batches, np.bool_)
        self._attributes: dict[str, Any] | None = None

    def completed(self) -> Iterator[tuple[list[str], Array]]:
        """Yield ids and mean vectors of each batch that completed since the last call.

        Raises:
            RedisError: Redis does not answer; the next call goes on.
            UserError: a shard cannot be read.
        """
        settled = self._ledger.batches.settled(self._manifest, self._came)
        for index, rungs in settled.items():  # in their order: what each needs is before it
            if not self._has_needs(index):
                continue
            keys = [shard_key(self._manifest.job, index, rung) for rung in rungs]
            if self._attributes is None:
                self._attributes = attributes_of_job(self._store, self._manifest, {index: keys})
            block = merged(self._store, self._manifest, index, keys, self._attributes)
            part, _ = self._fan_out.whole(index, *block)
            self._came[index] = True
            del self._needs[index]
            yield part.ids, part.pooled["mean"]

    def close(self) -> None:
        """Delete the temporary files."""
        self._fan_out.close()

    def _has_needs(self, index: int) -> bool:
        """Return whether all batches came that a batch needs."""
        if index not in self._needs:
            self._needs[index] = self._fan_out.needs(index)
        return all(self._came[needed] for needed in self._needs[index])

    def check_all_came(self) -> None:
        """Raise at the end of a job if batches failed.

        Raises:
            UserError: how many.
        """
        blocked = len(self._needs)
        failed = int(np.count_nonzero(~self._came)) - blocked
        if failed:
            others = f", and {blocked:,} more have copies of their sequences" if blocked else ""
            raise UserError(
                f"{failed:,} of {counted_batches(self._manifest.batches)} of {self._manifest.job} "
                f"failed{others}; all others were yielded. To try again: "
                f"{how_to('retry', self._manifest.job)}"
            )


def without_residues(manifest: Manifest) -> Manifest:
    """Return the manifest of a job as if it kept nothing of residues: nearly all bytes are that."""
    kept = [name for name in manifest.form.include if name in POOLED or name in RECORD_SCORES]
    form = manifest.form.model_copy(update={"include": tuple(kept)})
    return manifest.model_copy(update={"form": form})
