"""``.npz``: the arrays of the HDF5 file, for ``numpy.load``, without pickles."""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.table import PRECISION_NAMES
from common.errors import UserError
from common.text import counted_bytes
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
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

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["NpzWriter"]:
        with (
            locked_file(path) as file,
            zipfile.ZipFile(file, "w") as archive,
            Spool(path.parent) as spool,
        ):
            writer = NpzWriter(archive, spool, contents)
            try:
                yield writer
            finally:
                writer.largest.close()  # or the archive cannot be closed

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        with np.load(source) as arrays:
            found: dict[str, Any] = json.loads(str(arrays[ATTRIBUTES]))
            return found if set(arrays.files) == set(found["members"]) else None


class NpzWriter:
    """Writes the largest array into the archive as it comes, and the others after it."""

    def __init__(self, archive: zipfile.ZipFile, spool: Spool, contents: Contents) -> None:
        self._archive = archive
        self._spool = spool
        self._records = contents.records
        form, shape = contents.form, contents.shape
        #: The shape and type of each array of vectors, the largest last.
        self._vectors: dict[str, Member] = dict.fromkeys(
            form.pooled_names, ((contents.records, *shape), contents.pooled_dtype)
        )
        if form.per_residue:
            self._vectors["residues"] = ((contents.residues, *shape), form.residue_dtype)
        self._largest_name = list(self._vectors)[-1]
        self._members = [self._largest_name]
        self.largest: IO[bytes] = archive.open(f"{self._largest_name}.npy", "w", force_zip64=True)
        self.largest.write(npy_header(*self._vectors[self._largest_name]))

    def write(self, part: Embeddings) -> None:
        arrays: dict[str, Array] = dict(part.pooled)
        if part.residues is not None:
            arrays["residues"] = part.residues
        for name, values in arrays.items():
            if name == self._largest_name:
                if values.size:
                    self.largest.write(np.ascontiguousarray(values).data.cast("B"))
            else:
                self._spool.append(name, values)
        for name in NUMBERS:
            self._spool.append(name, part.columns[name])
        self._spool.append("ids", part.ids)
        self._spool.append("precision", [PRECISION_NAMES[code] for code in part.precision.tolist()])

    def finish(self, attributes: Mapping[str, Any]) -> None:
        self.largest.close()
        for name, (shape, dtype) in self._vectors.items():
            if name != self._largest_name:
                self._member(name, shape, dtype, self._spool.chunks(name))
        for name in NUMBERS:
            self._member(name, (self._records,), "<i8", self._spool.chunks(name))
        if "residues" in self._vectors:
            lengths = np.frombuffer(b"".join(self._spool.chunks("lengths")), np.int64)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            self._member("offsets", offsets.shape, "<i8", [offsets.tobytes()])
        for name in ("ids", "precision"):
            self._texts(name)
        members = [*self._members, ATTRIBUTES]
        text = np.array(json.dumps({**attributes, "members": members}))
        self._member(ATTRIBUTES, (), text.dtype.str, [text.tobytes()])

    def _texts(self, name: str) -> None:
        longest = self._spool.longest.get(name, 1)
        padded = 4 * longest * self._records
        if padded > max(MOST_PADDED, 100 * self._spool.bytes_of(name)):
            raise UserError(
                f"An id has {longest:,} letters, and .npz keeps all as long as the longest: "
                f"{counted_bytes(padded)}. Name a .h5, .parquet or .safetensors file."
            )
        self._member(name, (self._records,), f"<U{longest}", self._spool.padded(name), packed=True)

    def _member(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        chunks: Iterable[bytes],
        *,
        packed: bool = False,
    ) -> None:
        info = zipfile.ZipInfo(f"{name}.npy")
        info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        with self._archive.open(info, "w", force_zip64=True) as file:
            file.write(npy_header(shape, dtype))
            for chunk in chunks:
                file.write(chunk)
        if name not in self._members:
            self._members.append(name)


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the bytes of a ``.npy`` file before its numbers."""
    buffer = BytesIO()
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()
