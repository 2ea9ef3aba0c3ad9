"""The default: one HDF5 file with a dataset per kind of value, as ``docs/formats.md`` describes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.file import GROUPS
from common.embeddings.origins import Origins
from common.embeddings.placed_writer import PlacedWriter
from common.embeddings.reader import open_embedding_file
from common.embeddings.writer import PAIR_OFFSETS, EmbeddingWriter, create_embedding_file
from common.job.output_form import POOLED, SCORES
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.partial import lock

#: The datasets of a job that was read from several sources.
ORIGINS = ("source", "source_names", "source_records")

#: All datasets that there can be. A file with another one has something of its owner.
DATASETS = {
    *("ids", "headers", "rows", "lengths", "input_lengths", "precision"),
    *(*POOLED, *SCORES, "residues", "offsets", PAIR_OFFSETS, *ORIGINS),
}


class ColumnarLayout(Layout):
    """One HDF5 file in the form of a shard."""

    name = "h5"
    scores = SCORES
    has_places = True
    suffixes = (".h5", ".hdf5", ".hdf")

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["ColumnarWriter"]:
        with create_embedding_file(
            path,
            form=contents.form,
            records=contents.records,
            residues=contents.residues,
            pairs=contents.pairs,
            dim=contents.dim,
            attributes=contents.attributes,
            pooled_dtype=contents.pooled_dtype,
        ) as writer:
            lock(writer.sink)
            if contents.origins is not None:
                create_origins(writer.file, contents.records, contents.origins)
            yield ColumnarWriter(writer, contents.origins)

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        with open_embedding_file(source) as file:
            groups = {str(name) for name in file.attrs.get(GROUPS, ())}
            return dict(file.attrs) if set(file) - groups <= DATASETS else None


class ColumnarWriter:
    """Writes one HDF5 file."""

    def __init__(self, writer: EmbeddingWriter, origins: Origins | None) -> None:
        self._writer = writer
        self._origins = origins
        self._rows = 0
        self._placed: PlacedWriter | None = None

    @property
    def file(self) -> h5py.File:
        return self._writer.file

    def write(self, part: Embeddings) -> None:
        self._write_sources(part)
        self._writer.write(part)
        self._raise_error()

    def announce(self, names: Embeddings) -> None:
        if self._placed is None:
            self._placed = PlacedWriter(self._writer)
        self._write_sources(names)
        self._placed.announce(names)
        self._raise_error()

    def place(self, block: int, part: Embeddings) -> None:
        assert self._placed is not None
        self._placed.place(block, part)
        self._raise_error()

    def _write_sources(self, part: Embeddings) -> None:
        if self._origins is not None:
            numbers = self._origins.numbers(part.rows)
            self.file["source"][self._rows : self._rows + len(part)] = numbers
            self._rows += len(part)

    def _raise_error(self) -> None:
        if self._writer.sink.error:
            raise self._writer.sink.error

    def finish(self, attributes: Mapping[str, Any]) -> None:
        if self._placed is not None:
            self._placed.finish()
        new = {name: value for name, value in attributes.items() if name not in self.file.attrs}
        self.file.attrs.update(new)


def create_origins(file: h5py.File, records: int, origins: Origins) -> None:
    """Create the dataset with each row's source, and those with what the sources are."""
    file.create_dataset("source", (records,), np.int32)
    file.create_dataset("source_names", data=list(origins.names), dtype=h5py.string_dtype())
    file.create_dataset("source_records", data=origins.records)
