"""One HDF5 dataset per id, as UniProt and bio_embeddings write it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.reader import open_embedding_file
from common.embeddings.sink import Sink
from common.embeddings.writer import timeless
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.partial import locked_sink

#: The attribute of the file that tells how many datasets it has.
DATASETS = "datasets"

#: The longest name of a dataset in letters; an id may have any length.
LONGEST_NAME = 1000


class PerIdLayout(Layout):
    """A file with a dataset ``[D]``, or ``[L, D]`` of residues, for each id."""

    name = "uniprot"
    suffixes = (".h5", ".hdf5", ".hdf")
    holds_one_kind = True

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["PerIdWriter"]:
        # Groups of a million datasets need the form of HDF5 1.10.
        with locked_sink(path) as sink, h5py.File(sink, "w", libver=("v110", "v110")) as file:
            yield PerIdWriter(file, sink, contents)

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        with open_embedding_file(source) as file:
            return dict(file.attrs) if file.attrs[DATASETS] == len(file) else None


class PerIdWriter:
    """Writes a dataset per id."""

    def __init__(self, file: h5py.File, sink: Sink, contents: Contents) -> None:
        self._file = file
        self._sink = sink
        self._kind = contents.form.include[0]
        self._count = 0
        # The low-level interface of h5py: the other one takes four times as long.
        self._type = h5py.h5t.py_create(h5py.string_dtype(), logical=True)
        self._scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        self._plan = timeless()

    def write(self, part: Embeddings) -> None:
        for position, (id_, precision) in enumerate(
            zip(part.ids, part.precision.tolist(), strict=True)
        ):
            vectors = (
                part.residues_of(position)
                if self._kind == "per_residue"
                else part.pooled[self._kind][position]
            )
            attributes = {"original_id": id_} | ({} if precision else {"precision": "none"})
            self._write(self._free_name(id_, int(part.rows[position])), vectors, attributes)
        if self._sink.error:
            raise self._sink.error

    def finish(self, attributes: Mapping[str, Any]) -> None:
        self._file.attrs.update({**attributes, DATASETS: self._count})

    def _free_name(self, id_: str, row: int) -> bytes:
        """Return a name that no dataset has: the id, unless HDF5 reads it in another way."""
        name = re.sub(r"[/\0]", "_", id_)[:LONGEST_NAME]
        if not name.strip("."):  # "." is the group itself
            name = f"row_{row}"
        found, again = name.encode(), 1
        while found in self._file.id:
            again += 1
            found = f"{name}~{again}".encode()
        return found

    def _write(self, name: bytes, vectors: Array, attributes: dict[str, str]) -> None:
        vectors = np.ascontiguousarray(vectors)
        space = h5py.h5s.create_simple(vectors.shape)
        type_ = h5py.h5t.py_create(vectors.dtype)
        dataset = h5py.h5d.create(self._file.id, name, type_, space, self._plan)
        if vectors.size:
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, vectors)
        for key, text in attributes.items():
            attribute = h5py.h5a.create(dataset, key.encode(), self._type, self._scalar)
            attribute.write(np.array(text, h5py.string_dtype()))
        self._count += 1
