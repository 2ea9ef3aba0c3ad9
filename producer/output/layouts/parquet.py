"""Parquet: a row per record, vectors as lists of a fixed size."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.table import PRECISION_NAMES
from common.job.output_form import RECORD_SCORES, RESIDUE_SCORES, SCORES
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.partial import locked_file

#: Bytes of vectors in a row group, at least. Readers hold one at a time.
ROW_GROUP_BYTES = 32 * 2**20

#: The key of the file's metadata with what made the embeddings.
METADATA = "virnucpro_fleet"

#: Columns of texts, which are worth compressing; vectors hardly become smaller.
TEXTS = ("id", "header", "precision")


class ParquetLayout(Layout):
    """A Parquet file, for pandas, Polars, DuckDB and Spark."""

    name = "parquet"
    suffixes = (".parquet",)
    package = "pyarrow"
    extra = "parquet"
    scores = RESIDUE_SCORES | RECORD_SCORES

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["ParquetWriter"]:
        with locked_file(path) as file:
            writer = ParquetWriter(self.load_package(), file, contents)
            with writer.arrow:
                yield writer

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        self.load_package()
        metadata = import_module("pyarrow.parquet").read_metadata(source).metadata or {}
        found: dict[str, Any] = json.loads(metadata[METADATA.encode()])
        return found


class ParquetWriter:
    """Writes a Parquet file in row groups."""

    def __init__(self, pyarrow: Any, file: BinaryIO, contents: Contents) -> None:
        self._pa = pyarrow
        self._contents = contents
        self._waiting: list[Embeddings] = []
        self._bytes = 0
        types = {
            "id": pyarrow.string(),
            "header": pyarrow.string(),
            "row": pyarrow.int64(),
            "length": pyarrow.int64(),
            "input_length": pyarrow.int64(),
            "precision": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        }
        if contents.origins is not None:
            types["source"] = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        for name, _, _ in self._vector_columns():
            of_residues = name.startswith("residues")
            dtype = contents.form.residue_dtype if of_residues else contents.pooled_dtype
            vector = pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(dtype)), contents.dim)
            types[name] = pyarrow.list_(vector) if of_residues else vector
        for name in contents.form.scores:
            types[name] = self._score_type(name)
        self._schema = pyarrow.schema(types.items())
        #: The writer of Arrow, which is closed by the layout.
        self.arrow = import_module("pyarrow.parquet").ParquetWriter(
            file,
            self._schema,
            use_dictionary=["precision", "source"],
            write_statistics=["id", "row", "length", "input_length", "precision"],
            compression=dict.fromkeys(TEXTS, "zstd"),
        )

    def write(self, part: Embeddings) -> None:
        self._waiting.append(part)
        numbers = (*part.pooled.values(), *part.scores.values())
        self._bytes += sum(values.nbytes for values in numbers)
        self._bytes += 0 if part.residues is None else part.residues.nbytes
        if self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def finish(self, attributes: Mapping[str, Any]) -> None:
        if self._waiting:
            self._flush()
        self.arrow.add_key_value_metadata({METADATA: json.dumps(dict(attributes))})

    def _flush(self) -> None:
        """Write the rows that wait as one row group."""
        table = self._pa.concat_tables(map(self._table, self._waiting))
        self._waiting, self._bytes = [], 0
        self.arrow.write_table(table, row_group_size=max(1, len(table)))

    def _table(self, part: Embeddings) -> Any:
        pa = self._pa
        names = pa.array(list(PRECISION_NAMES.values()))
        positions = {code: place for place, code in enumerate(PRECISION_NAMES)}
        codes = np.array([positions[code] for code in part.precision.tolist()], np.int8)
        columns = {
            "id": pa.array(part.ids, pa.string()),
            "header": pa.array(part.headers, pa.string()),
            "row": pa.array(part.rows),
            "length": pa.array(part.lengths),
            "input_length": pa.array(part.input_lengths),
            "precision": pa.DictionaryArray.from_arrays(codes, names),
        }
        origins = self._contents.origins
        if origins is not None:
            numbers = origins.numbers(part.rows)
            sources = pa.array(origins.names, pa.string())
            columns["source"] = pa.DictionaryArray.from_arrays(numbers, sources)
        for name, kind, layer in self._vector_columns():
            values = part.residues if kind == "per_residue" else part.pooled[kind]
            assert values is not None
            vectors = self._vectors(values if layer is None else values[:, layer])
            if kind == "per_residue":
                vectors = pa.ListArray.from_arrays(offsets(part), vectors)
            columns[name] = vectors
        for name, values in part.scores.items():
            columns[name] = self._score(part, name, values)
        return pa.table(columns, schema=self._schema)

    def _vectors(self, values: Array) -> Any:
        flat = self._pa.array(np.ascontiguousarray(values).reshape(-1))
        return self._pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    def _score_type(self, name: str) -> Any:
        """Return the type of a score's column: a number, a list of them, or a list of either."""
        shape, type_ = self._contents.form.score_shape(name), self._pa.float32()
        type_ = self._pa.list_(type_, *shape) if shape else type_
        return self._pa.list_(type_) if name in RESIDUE_SCORES else type_

    def _score(self, part: Embeddings, name: str, values: Array) -> Any:
        """Return a score's column."""
        entries = self._vectors(values) if values.ndim > 1 else self._pa.array(values)
        if name not in RESIDUE_SCORES:
            return entries
        return self._pa.ListArray.from_arrays(offsets(part), entries)

    def _vector_columns(self) -> Iterator[tuple[str, str, int | None]]:
        """Yield the name of each column of vectors, their kind, and which of several layers."""
        layers = self._contents.layers
        for kind in self._contents.form.include:
            if kind in SCORES:
                continue
            name = "residues" if kind == "per_residue" else kind
            if len(layers) == 1:
                yield name, kind, None
            else:
                yield from ((f"{name}_{layer}", kind, k) for k, layer in enumerate(layers))


def offsets(part: Embeddings) -> Array:
    """Return where the residues of each row start ``[n + 1]``."""
    return np.concatenate([[0], np.cumsum(part.lengths)]).astype(np.int32)
