"""``.npz``: the arrays of the HDF5 file, for ``numpy.load``, without pickles."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.table import PRECISION_NAMES
from common.errors import UserError
from common.job.output_form import RECORD_SCORES, RESIDUE_SCORES
from common.text import counted_bytes
from producer.output.contents import Contents
from producer.output.layouts.at_place import array_bytes, bytes_of
from producer.output.layouts.layout import Layout
from producer.output.layouts.placed_zip import PlacedZip
from producer.output.layouts.spool import Spool
from producer.output.partial import locked_file

#: The member with what made the embeddings, as JSON.
ATTRIBUTES = "attributes"

#: Members with a number per row.
NUMBERS = ("rows", "lengths", "input_lengths")

#: The shape and the type of an array.
Member = tuple[tuple[int, ...], str]

#: Bytes of padded ids that are written whatever the ids are.
MOST_PADDED = 2**30


class NpzLayout(Layout):
    """A zip of arrays."""

    name = "npz"
    suffixes = (".npz",)
    scores = RESIDUE_SCORES | RECORD_SCORES

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["NpzWriter"]:
        with locked_file(path) as file, Spool(path.parent) as spool:
            yield NpzWriter(file, spool, contents)

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        with np.load(source) as arrays:
            found: dict[str, Any] = json.loads(str(arrays[ATTRIBUTES]))
            return found if set(arrays.files) == set(found["members"]) else None


class NpzWriter:
    """Writes each array of numbers at its place, and texts, whose size is not known, after them."""

    def __init__(self, file: BinaryIO, spool: Spool, contents: Contents) -> None:
        self._spool = spool
        self._records = contents.records
        self._letters = 0
        self._shapes = shapes_of(contents)
        headers = {name: npy_header(*member) for name, member in self._shapes.items()}
        sizes = {
            member_name(name): len(headers[name]) + array_bytes(*member)
            for name, member in self._shapes.items()
        }
        self._zip = PlacedZip(file, sizes)
        for name, header in headers.items():
            self._zip.append(member_name(name), header)
        if "offsets" in self._shapes:
            self._append("offsets", np.zeros(1, np.int64))

    def write(self, part: Embeddings) -> None:
        for name in NUMBERS:
            self._append(name, part.columns[name])
        of_residues = part.of_residues
        for name, values in {**part.pooled, **part.scores, **of_residues}.items():
            self._append(name, values)
        if of_residues:
            self._append("offsets", self._letters + np.cumsum(part.lengths))
            self._letters += int(part.lengths.sum())
        self._spool.append("ids", part.ids)
        self._spool.append("precision", [PRECISION_NAMES[code] for code in part.precision.tolist()])

    def finish(self, attributes: Mapping[str, Any]) -> None:
        members = [*self._shapes, "ids", "precision", ATTRIBUTES]
        text = np.array(json.dumps({**attributes, "members": members}))
        with self._zip.rest() as archive:
            for name in ("ids", "precision"):
                self._texts(archive, name)
            with archive.open(member_name(ATTRIBUTES), "w") as file:
                file.write(npy_header((), text.dtype.str) + text.tobytes())

    def _append(self, name: str, values: Array) -> None:
        self._zip.append(member_name(name), bytes_of(values))

    def _texts(self, archive: zipfile.ZipFile, name: str) -> None:
        longest = self._spool.longest.get(name, 1)
        padded = 4 * longest * self._records
        if padded > max(MOST_PADDED, 100 * self._spool.bytes_of(name)):
            raise UserError(
                f"An id has {longest:,} letters, and .npz keeps all as long as the longest: "
                f"{counted_bytes(padded)}. Name a .h5, .parquet or .safetensors file."
            )
        with archive.open(member_name(name), "w", force_zip64=True) as file:
            file.write(npy_header((self._records,), f"<U{longest}"))
            for chunk in self._spool.padded(name):
                file.write(chunk)


def shapes_of(contents: Contents) -> dict[str, Member]:
    """Return the shape and type of each array of numbers, in the order of the archive."""
    form, shape, records = contents.form, contents.shape, contents.records
    shapes: dict[str, Member] = dict.fromkeys(
        form.pooled_names, ((records, *shape), contents.pooled_dtype)
    )
    if form.per_residue:
        shapes["residues"] = (contents.residues, *shape), form.residue_dtype
    for name in form.scores:
        entries = contents.residues if name in RESIDUE_SCORES else records
        shapes[name] = (entries, *form.score_shape(name)), "float32"
    if form.has_residues:
        shapes["offsets"] = (records + 1,), "<i8"
    return shapes | dict.fromkeys(NUMBERS, ((records,), "<i8"))


def member_name(name: str) -> str:
    return f"{name}.npy"


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the bytes of a ``.npy`` file before its numbers."""
    buffer = BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()
