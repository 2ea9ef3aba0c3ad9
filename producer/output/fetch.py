"""Shards to one output: rows in input order, rungs merged, every row with its precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import __version__
from common.embeddings.arrays import Array, Embeddings
from common.errors import UserError
from common.job.inputs import read_input
from common.job.layout import job_prefix, manifest_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.store import Store
from common.wire.messages import Instability
from producer.output.contents import Rows
from producer.output.job_shards import (
    SHARDS_AHEAD,
    attributes_of_file,
    check_order,
    lengths_of,
    merged,
    shards_by_batch,
)
from producer.output.wanted import Wanted
from producer.output.writing import write_rows


@dataclass(frozen=True)
class Fetched:
    """The contents of the file that was written."""

    path: Path | str  # a file or folder, or the URL of an object
    rows: int
    precisions: dict[str, int]  # number of rows with vectors, by precision
    quarantined: list[Instability]  # rows without vectors
    warning: str | None


def fetch(
    store: Store,
    manifest: Manifest,
    output: Path,
    on_rows: Callable[[int], None] = lambda _rows: None,
    before_replacing: Callable[[], None] = lambda: None,
    check_room: Callable[[int], None] = lambda _bytes: None,
    wanted: Wanted | None = None,
) -> Fetched:
    """Write a finished job's rows, in input order, into one output.

    Memory holds a few shards, whatever the size of the job. The output has its name only once it
    is whole.

    Args:
        on_rows: called with the number of rows of each batch that was written.
        before_replacing: raises if an existing output must stay.
        check_room: called with the bytes that the output will have; raises if there is no room.
        wanted: which rows and vectors, and how; None: all, in the layout of the suffix.

    Raises:
        UserError: batches are missing, shards come from different weights, or the output cannot
            be written.
    """
    rows = JobRows(store, manifest)
    try:
        written = write_rows(
            rows,
            output,
            wanted or Wanted(),
            on_rows=on_rows,
            before_replacing=before_replacing,
            check_room=check_room,
        )
    except ValueError as error:
        raise UserError(
            f"{store.url}/{manifest_key(manifest.job)} does not belong to the shards ({error}): "
            f"delete {store.url}/{job_prefix(manifest.job)} and submit the input again."
        ) from error
    warning = rows.attributes.get("warning")
    return Fetched(output, written.rows, written.precisions, written.quarantined, warning)


class JobRows(Rows):
    """The rows of a finished job in its store; a block is a batch."""

    pooled_dtype = "float32"
    ahead = SHARDS_AHEAD

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Find a job's shards.

        Raises:
            UserError: batches have none, or none can be read.
        """
        self._store = store
        self._manifest = manifest
        self._keys = shards_by_batch(store, manifest)
        self._of_shards = attributes_of_file(store, manifest, self._keys)
        self._last_row = -1
        self.form = manifest.form
        self.records = manifest.report.records
        self.residues = manifest.report.residues
        self.dim = int(self._of_shards["dim"])
        self.attributes = self._of_shards | of_file(manifest)
        self.blocks = manifest.batches
        self.origins = manifest.origins

    def block(self, index: int, form: OutputForm) -> tuple[Embeddings, tuple[Instability, ...]]:
        manifest = self._manifest
        if form.include != manifest.form.include:  # others are not even read
            kept = manifest.form.model_copy(update={"include": form.include})
            manifest = manifest.model_copy(update={"form": kept})
        return merged(self._store, manifest, index, self._keys[index], self._of_shards)

    def names(self, index: int) -> tuple[list[str], Array]:
        records = read_input(self._store, self._manifest, index)
        return [record.id for record in records], lengths_of(records, self.form)

    def check(self, index: int, part: Embeddings) -> None:
        self._last_row = check_order(self._manifest, self._keys[index], part, self._last_row)

    def check_end(self) -> None:
        """Do nothing: each shard was proven when it was read."""


def of_file(manifest: Manifest) -> dict[str, str]:
    """Return the attributes of a job's file beside those of its shards and its input."""
    return {
        "input_fingerprint": manifest.input_fingerprint,
        "model_digest": manifest.model_digest or "",
        "version": __version__,
    }
