"""AnnData, for scanpy: ``.h5ad``, written row by row without the package.

Source: "On-disk format" in the documentation of anndata.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.file import plain
from common.embeddings.reader import open_embedding_file
from common.embeddings.sink import Sink
from common.embeddings.table import PRECISION_NAMES
from common.job.output_form import POOLED, RECORD_SCORES
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.partial import locked_sink

#: Columns of ``obs`` with numbers, and the columns that they come from.
NUMBERS = {"row": "rows", "length": "lengths", "input_length": "input_lengths"}

#: Versions of the encodings that are used.
VERSIONS = {"anndata": "0.1.0", "dict": "0.1.0"}
LATEST = "0.2.0"


class AnnDataLayout(Layout):
    """A file with a matrix ``X`` and a table ``obs`` of the records."""

    name = "h5ad"
    suffixes = (".h5ad",)
    holds_residues = False
    scores = RECORD_SCORES

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["AnnDataWriter"]:
        with locked_sink(path) as sink, h5py.File(sink, "w") as file:
            yield AnnDataWriter(file, sink, contents)

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        with open_embedding_file(source) as file:
            found = {name: as_text(value[()]) for name, value in file["uns"].items()}
            columns = set(file["obs"].attrs["column-order"]) - set(RECORD_SCORES)
            return found if columns == {*NUMBERS, "header", "precision"} else None


class AnnDataWriter:
    """Writes the rows of an AnnData."""

    def __init__(self, file: h5py.File, sink: Sink, contents: Contents) -> None:
        self._file = file
        self._sink = sink
        self._written = 0
        records, dim = contents.records, contents.dim
        encode(file, "anndata")
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            encode(file.create_group(name), "dict")
        #: The dataset of each kind and layer, with what it holds.
        self._matrices: list[tuple[str, int | None, h5py.Dataset]] = []
        for name, kind, layer in matrices(contents):
            dataset = file.create_dataset(name, (records, dim), contents.pooled_dtype)
            self._matrices.append((kind, layer, encode(dataset, "array")))
        self._obs = encode(file.create_group("obs"), "dataframe")
        self._obs.attrs["_index"] = "_index"
        self._create_scores(contents)
        order = ["header", *NUMBERS, "precision", *self._numbers]
        self._obs.attrs["column-order"] = np.array(order, h5py.string_dtype())
        for name in ("_index", "header"):
            texts = self._obs.create_dataset(name, (records,), h5py.string_dtype())
            encode(texts, "string-array")
        for name in NUMBERS:
            encode(self._obs.create_dataset(name, (records,), np.int64), "array")
        precision = encode(self._obs.create_group("precision"), "categorical")
        precision.attrs["ordered"] = False
        names = np.array(list(PRECISION_NAMES.values()), h5py.string_dtype())
        encode(precision.create_dataset("categories", data=names), "string-array")
        self._codes = precision.create_dataset("codes", (records,), np.int8)
        encode(self._codes, "array")
        self._positions = np.zeros(max(PRECISION_NAMES) + 1, np.int8)
        self._positions[list(PRECISION_NAMES)] = range(len(PRECISION_NAMES))
        self._create_var(dim)

    def _create_scores(self, contents: Contents) -> None:
        """Create columns of ``obs`` for scores that are numbers, ``obsm`` for those of several."""
        self._numbers: list[str] = []
        self._scores: dict[str, h5py.Dataset] = {}
        for name in contents.form.scores:
            shape = contents.form.score_shape(name)
            place = self._file["obsm"] if shape else self._obs
            dataset = place.create_dataset(name, (contents.records, *shape), np.float32)
            self._scores[name] = encode(dataset, "array")
            self._numbers += [] if shape else [name]

    def _create_var(self, dim: int) -> None:
        """Create the table of the dimensions, which has their numbers alone."""
        var = encode(self._file.create_group("var"), "dataframe")
        var.attrs["_index"] = "_index"
        var.attrs["column-order"] = np.array([], np.float64)  # as anndata writes none
        names = np.array([str(number) for number in range(dim)], h5py.string_dtype())
        encode(var.create_dataset("_index", data=names), "string-array")

    def write(self, part: Embeddings) -> None:
        here = slice(self._written, self._written + len(part))
        for kind, layer, dataset in self._matrices:
            values = part.pooled[kind]
            dataset[here] = values if layer is None else values[:, layer]
        self._obs["_index"][here] = part.ids
        self._obs["header"][here] = part.headers
        for name, column in NUMBERS.items():
            self._obs[name][here] = part.columns[column]
        for name, dataset in self._scores.items():
            dataset[here] = part.scores[name]
        self._codes[here] = self._positions[part.precision]
        self._written = here.stop
        if self._sink.error:
            raise self._sink.error

    def finish(self, attributes: Mapping[str, Any]) -> None:
        uns = self._file["uns"]
        for name, value in attributes.items():
            if isinstance(value, str):
                encode(uns.create_dataset(name, data=value), "string")
            elif isinstance(value, list | tuple):
                texts = all(isinstance(one, str) for one in value)
                data = np.array(value, h5py.string_dtype() if texts else None)
                dataset = uns.create_dataset(name, data=data)
                encode(dataset, "string-array" if texts else "array")
            else:
                encode(uns.create_dataset(name, data=value), "numeric-scalar")


def matrices(contents: Contents) -> Iterator[tuple[str, str, int | None]]:
    """Yield the name of each dataset of vectors, their kind, and which of several layers.

    The first kind is ``X``, or ``layers`` if there are several; the others are in ``obsm``.
    """
    layers = contents.layers
    for order, kind in enumerate(sorted(contents.form.pooled_names, key=POOLED.index)):
        if len(layers) == 1:
            yield ("X" if order == 0 else f"obsm/{kind}"), kind, None
        else:
            for k, layer in enumerate(layers):
                yield (f"layers/{layer}" if order == 0 else f"obsm/{kind}_{layer}"), kind, k


def encode(item: Any, encoding: str) -> Any:
    """Say how a dataset or a group is to be read; return it."""
    item.attrs["encoding-type"] = encoding
    item.attrs["encoding-version"] = VERSIONS.get(encoding, LATEST)
    return item


def as_text(value: Any) -> Any:
    """Return a value of HDF5 as Python's own type."""
    return value.decode() if isinstance(value, bytes) else plain(value)
