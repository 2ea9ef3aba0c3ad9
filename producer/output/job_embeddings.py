"""A job's embeddings read from its shards in the store, without fetching a file."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from common.advice import how_to
from common.bounded_map import bounded_map
from common.embeddings.arrays import Array, Embeddings, not_included
from common.embeddings.origins import Origins
from common.embeddings.table import EmbeddingTable
from common.errors import UserError
from common.job.layout import shard_key
from common.job.manifest import Manifest
from common.job.output_form import POOLED, RECORD_SCORES
from common.ledger.ledger import Ledger
from common.store import ObjectNotFoundError, Store
from common.text import counted_batches
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
        #: The batch whose residues were asked for last.
        self._latest: tuple[int, Embeddings] | None = None

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

        def load(index: int) -> Embeddings:
            return merged(self._store, manifest, index, self._keys[index], self.attributes)[0]

        parts, last_row = [], -1
        for index, part in enumerate(bounded_map(load, range(manifest.batches), SHARDS_AHEAD)):
            last_row = check_order(manifest, self._keys[index], part, last_row)
            parts.append(part)
        return Embeddings.concatenate(parts, manifest.form, int(self.attributes["dim"]))

    def _residues_at(self, position: int, name: str) -> Array:
        kind = "per_residue" if name == "residues" else name
        if kind not in self._manifest.form.include:
            raise not_included(kind)
        batch = int(np.searchsorted(self._ends, position, side="right"))
        part = self._batch(batch)
        return part.residues_of(position - int(self._ends[batch]) + len(part), name)

    @cached_property
    def _ends(self) -> Array:
        """The position after the last row of each batch."""
        return np.cumsum(self._manifest.batch_records)

    def _batch(self, index: int) -> Embeddings:
        if self._latest is None or self._latest[0] != index:
            keys = self._keys[index]
            try:
                part, _ = merged(self._store, self._manifest, index, keys, self.attributes)
            except ObjectNotFoundError as error:
                raise UserError(
                    f"The residues of {self._manifest.job} are no longer in {self._store.url}: the "
                    "job was deleted, or its fleet of one machine was closed."
                ) from error
            self._latest = index, part
        return self._latest[1]


class BatchStream:
    """The batches of a job that is under way, each once, as they complete."""

    def __init__(self, store: Store, ledger: Ledger, manifest: Manifest) -> None:
        """Begin a stream.

        Raises:
            UserError: the job keeps no mean vectors.
        """
        if "mean" not in manifest.form.include:
            raise not_included("mean")
        self._store = store
        self._ledger = ledger
        self._manifest = without_residues(manifest)
        self._came = np.zeros(manifest.batches, np.bool_)
        self._attributes: dict[str, Any] | None = None

    def completed(self) -> Iterator[tuple[list[str], Array]]:
        """Yield ids and mean vectors of each batch that completed since the last call.

        Raises:
            RedisError: Redis does not answer; the next call goes on.
            UserError: a shard cannot be read.
        """
        settled = self._ledger.batches.settled(self._manifest, self._came)
        for index, rungs in settled.items():
            keys = [shard_key(self._manifest.job, index, rung) for rung in rungs]
            if self._attributes is None:
                self._attributes = attributes_of_job(self._store, self._manifest, {index: keys})
            part, _ = merged(self._store, self._manifest, index, keys, self._attributes)
            self._came[index] = True
            yield part.ids, part.pooled["mean"]

    def check_all_came(self) -> None:
        """Raise at the end of a job if batches failed.

        Raises:
            UserError: how many.
        """
        failed = int(np.count_nonzero(~self._came))
        if failed:
            raise UserError(
                f"{failed:,} of {counted_batches(self._manifest.batches)} of {self._manifest.job} "
                f"failed; all others were yielded. To try again: "
                f"{how_to('retry', self._manifest.job)}"
            )


def without_residues(manifest: Manifest) -> Manifest:
    """Return the manifest of a job as if it kept nothing of residues: nearly all bytes are that."""
    kept = [name for name in manifest.form.include if name in POOLED or name in RECORD_SCORES]
    form = manifest.form.model_copy(update={"include": tuple(kept)})
    return manifest.model_copy(update={"form": form})
