"""``.npy``: one array, with a table of ids beside it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.table import PRECISION_NAMES
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.layouts.npz import npy_header
from producer.output.layouts.text import COLUMNS, quoted
from producer.output.partial import locked_file


class NpyLayout(Layout):
    """An array ``[n, *W]``, or ``[sum(lengths), *W]`` of residues."""

    name = "npy"
    suffixes = (".npy",)
    is_one_file = False
    holds_one_kind = True

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["NpyWriter"]:
        with locked_file(path) as vectors, locked_file(table_while_written(path)) as table:
            yield NpyWriter(vectors, table, contents)

    def others(self, path: Path) -> tuple[Path, ...]:
        return (path.with_suffix(".ids.csv"),)

    def replace(self, partial: Path, output: Path) -> None:
        """Give both files their names; there is never an array beside the table of another."""
        output.unlink(missing_ok=True)
        [table] = self.others(output)
        table_while_written(partial).replace(table)
        partial.replace(output)

    def discard(self, partial: Path) -> None:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
            table_while_written(partial).unlink(missing_ok=True)


class NpyWriter:
    """Writes an array and its table."""

    def __init__(self, vectors: BinaryIO, table: BinaryIO, contents: Contents) -> None:
        self._vectors = vectors
        self._table = table
        form, shape = contents.form, contents.shape
        [self._kind] = form.include
        if self._kind == "per_residue":
            header = npy_header((contents.residues, *shape), form.residue_dtype)
        else:
            header = npy_header((contents.records, *shape), contents.pooled_dtype)
        self._vectors.write(header)
        self._table.write(",".join(COLUMNS).encode() + b"\n")

    def write(self, part: Embeddings) -> None:
        values = part.residues if self._kind == "per_residue" else part.pooled[self._kind]
        assert values is not None
        if values.size:
            self._vectors.write(np.ascontiguousarray(values).data.cast("B"))
        lines = zip(
            (quoted(id_, ",") for id_ in part.ids),
            map(str, part.rows.tolist()),
            map(str, part.lengths.tolist()),
            map(str, part.input_lengths.tolist()),
            (PRECISION_NAMES[code] for code in part.precision.tolist()),
            (quoted(header, ",") for header in part.headers),
            strict=True,
        )
        self._table.write("".join(f"{','.join(line)}\n" for line in lines).encode())

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Do nothing: an array has no place for attributes."""


def table_while_written(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.ids")
