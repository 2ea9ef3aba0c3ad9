"""safetensors: the arrays of the HDF5 file, which libraries map into memory.

A file is the length of a header, the header in JSON, and the arrays one after another. Source:
the format's description in the README of huggingface/safetensors.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.job.output_form import RECORD_SCORES, RESIDUE_SCORES
from common.rungs import PRECISION_CODES
from producer.output.contents import Contents
from producer.output.layouts.at_place import array_bytes, bytes_of, write_at
from producer.output.layouts.layout import Layout
from producer.output.partial import locked_file

#: Names of the format for types.
TYPES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}

#: The type and the shape of an array.
Tensor = tuple[str, tuple[int, ...]]

#: Arrays with a number per row.
NUMBERS = ("rows", "lengths", "input_lengths")

#: Bytes that the header may grow by while rows are written: the size of the ids, and attributes.
SPARE_BYTES = 1024

#: The entry of the header with what made the embeddings.
METADATA = "__metadata__"


class SafetensorsLayout(Layout):
    """A file of tensors."""

    name = "safetensors"
    suffixes = (".safetensors",)
    scores = RESIDUE_SCORES | RECORD_SCORES

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["SafetensorsWriter"]:
        with locked_file(path) as file:
            yield SafetensorsWriter(file, contents)

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        with ExitStack() as stack:
            file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, 2**24)))
        found: dict[str, Any] = json.loads(header[METADATA]["attributes"])
        return found if set(header) - {METADATA} == set(found["tensors"]) else None


class SafetensorsWriter:
    """Writes each array at its place; that of the ids, whose size is not known, is the last."""

    def __init__(self, file: BinaryIO, contents: Contents) -> None:
        self._descriptor = file.fileno()
        self._contents = contents
        form, shape, records = contents.form, contents.shape, contents.records
        self._shapes: dict[str, Tensor] = dict.fromkeys(NUMBERS, ("int64", (records,)))
        if form.has_residues:
            self._shapes["offsets"] = "int64", (records + 1,)
        for name in form.pooled_names:
            self._shapes[name] = contents.pooled_dtype, (records, *shape)
        if form.per_residue:
            self._shapes["residues"] = form.residue_dtype, (contents.residues, *shape)
        for name in form.scores:
            entries = contents.residues if name in RESIDUE_SCORES else records
            self._shapes[name] = "float32", (entries, *form.score_shape(name))
        self._shapes["precision"] = "uint8", (records,)
        self._shapes["ids"] = "uint8", (0,)
        #: The size of the header, and where the next values of each array go.
        self._header_bytes = len(self._header(contents.attributes)) + SPARE_BYTES
        self._header_bytes += -self._header_bytes % 8
        self._places = self._starts()
        self._letters = 0
        if form.has_residues:
            self._write("offsets", np.zeros(1, np.int64))

    def write(self, part: Embeddings) -> None:
        for name in (*NUMBERS, "precision"):
            self._write(name, part.columns[name])
        of_residues = part.of_residues
        for name, values in {**part.pooled, **part.scores, **of_residues}.items():
            self._write(name, values)
        if of_residues:
            self._write("offsets", self._letters + np.cumsum(part.lengths))
            self._letters += int(part.lengths.sum())
        text = "".join(f"{id_}\n" for id_ in part.ids).encode()
        self._write("ids", np.frombuffer(text, np.uint8))

    def finish(self, attributes: Mapping[str, Any]) -> None:
        size = self._places["ids"] - self._starts()["ids"]
        self._shapes["ids"] = "uint8", (size,)
        header = self._header(attributes)
        if len(header) > self._header_bytes:
            raise ValueError("the header is larger than its place")
        text = header.ljust(self._header_bytes)
        os.pwrite(self._descriptor, struct.pack("<Q", len(text)) + text, 0)

    def _write(self, name: str, values: Array) -> None:
        self._places[name] = write_at(self._descriptor, bytes_of(values), self._places[name])

    def _starts(self) -> dict[str, int]:
        """Return where each array begins in the file."""
        place, starts = 8 + self._header_bytes, {}
        for name, (dtype, shape) in self._shapes.items():
            starts[name] = place
            place += array_bytes(shape, dtype)
        return starts

    def _header(self, attributes: Mapping[str, Any]) -> bytes:
        found: dict[str, Any] = {
            METADATA: {
                "attributes": json.dumps({**attributes, "tensors": list(self._shapes)}),
                "precision_codes": json.dumps(PRECISION_CODES),
            }
        }
        end = 0
        for name, (dtype, shape) in self._shapes.items():
            start, end = end, end + array_bytes(shape, dtype)
            found[name] = {"dtype": TYPES[dtype], "shape": shape, "data_offsets": [start, end]}
        return json.dumps(found).encode()
