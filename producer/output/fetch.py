"""Shards to one output: rows in input order, rungs merged, every row with its precision."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from common import __version__
from common.embeddings.arrays import Embeddings
from common.errors import UserError
from common.job.layout import job_prefix, manifest_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.store import Store
from common.wire.messages import Instability
from producer.output.contents import Block, Names, Rows
from producer.output.fan_out import FanOut
from producer.output.helper import Helpers, Shards, helpers_for
from producer.output.job_shards import (
    attributes_of_file,
    check_order,
    merged,
    shards_ahead,
    shards_by_batch,
)
from producer.output.named import named_rows
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
    partial: str | None = None  # the batches that were done, if not all were


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
    return JobRows(store, manifest, output.parent).write(
        output,
        wanted or Wanted(),
        on_rows=on_rows,
        before_replacing=before_replacing,
        check_room=check_room,
    )


class JobRows(Rows):
    """The rows of a finished job in its store; a block is a batch."""

    pooled_dtype = "float32"

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        folder: Path | None = None,
        keys: dict[int, list[str]] | None = None,
    ) -> None:
        """Find a job's shards.

        Args:
            folder: where temporary files are; None: where such files usually are.
            keys: of each batch's shards; None: those in the store, of all batches.

        Raises:
            UserError: batches have none, or none can be read.
        """
        self._store = store
        self._manifest = manifest
        self._keys = shards_by_batch(store, manifest) if keys is None else keys
        self._of_shards = attributes_of_file(store, manifest, self._keys)
        self._folder = folder
        self._fan_out: FanOut | None = None
        self._helpers: Helpers | None = None
        self._last_row = -1
        self.form = manifest.form
        self.records = manifest.report.records
        self.residues = manifest.report.residues
        self.pairs = manifest.report.pairs
        self.dim = int(self._of_shards["dim"])
        self.ahead = shards_ahead(manifest, self.dim)
        self.attributes = self._of_shards | of_file(manifest)
        self.blocks = manifest.batches
        self.origins = manifest.origins

    def write(
        self,
        output: Path,
        wanted: Wanted,
        *,
        before_replacing: Callable[[], None],
        check_room: Callable[[int], None],
        on_rows: Callable[[int], None] = lambda _rows: None,
    ) -> Fetched:
        """Write the rows to one output; see ``fetch``."""
        store, job = self._store, self._manifest.job
        self._helpers = helpers_for(store, self._manifest, self._of_shards)
        try:
            written = write_rows(
                self,
                output,
                wanted,
                on_rows=on_rows,
                before_replacing=before_replacing,
                check_room=check_room,
            )
        except ValueError as error:
            raise UserError(
                f"{store.url}/{manifest_key(job)} does not belong to the shards ({error}): "
                f"delete {store.url}/{job_prefix(job)} and submit the input again."
            ) from error
        finally:
            if self._helpers is not None:
                self._helpers.end()
        return Fetched(
            output,
            written.rows,
            written.precisions,
            written.quarantined,
            self.attributes.get("warning"),
            self.attributes.get("partial"),
        )

    def begin(self, chosen: Mapping[int, Collection[int]] | None) -> Iterable[int]:
        only = None if chosen is None else set(chain.from_iterable(chosen.values()))
        fan_out = FanOut(self._store, self._manifest, only=only, folder=self._folder)
        self._fan_out = fan_out
        if chosen is None:
            return range(self.blocks)
        return sorted({*chosen, *chain.from_iterable(map(fan_out.needs, chosen))})

    def block(self, index: int, form: OutputForm) -> Block:
        return self.read(index, form)

    def read(self, index: int, form: OutputForm, *, with_texts: bool = True) -> Block:
        """Return what was computed of a block; see ``merged``."""
        if self._fan_out is not None:
            self._fan_out.prepare(index)
        manifest, kept = self._manifest, None
        if form.include != manifest.form.include:  # others are not even read
            update = {"form": manifest.form.model_copy(update={"include": form.include})}
            kept = manifest.model_copy(update=update)
        keys = self._keys[index]
        if self._helpers is not None:
            found = self._helpers.merged(Shards(kept, index, keys, with_texts))
            if found is not None:
                return found
        return merged(self._store, kept or manifest, index, keys, self._of_shards, with_texts)

    def whole(self, index: int, part: Embeddings, quarantined: tuple[Instability, ...]) -> Block:
        assert self._fan_out is not None
        return self._fan_out.whole(index, part, quarantined)

    def end(self) -> None:
        if self._fan_out is not None:
            self._fan_out.close()

    def names(self, index: int) -> Names:
        named = named_rows(self._store, self._manifest, index)
        return Names(named.ids, named.lengths, named.rows)

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
