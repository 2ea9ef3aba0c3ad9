"""The HDF5 form of embeddings: of a batch's shard, and of the file that a user gets.

Columnar: one dataset per kind of number with a row per record, because a dataset per record is
slow beyond 10^5 of them. ``docs/formats.md`` is the user's description.
"""

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.checksums import checksums
from common.job.output_form import OutputForm
from common.rungs import PRECISION_CODES

#: Bytes that the system is given at once: some refuse 2 GiB.
LARGEST_WRITE = 1 << 30

#: Attribute of every dataset of numbers or texts.
CHECKSUM = "crc32"

PRECISION_TYPE = h5py.enum_dtype(PRECISION_CODES, basetype="u1")


class EmbeddingWriter:
    """Writes embeddings, in order, into a file of a known number of rows."""

    def __init__(self, file: h5py.File, sink: "Sink", form: OutputForm) -> None:
        self.file = file
        self.sink = sink
        self.form = form
        self.rows_written = 0
        self.residues_written = 0
        #: Of each dataset so far.
        self.checksums: dict[str, int] = {}

    def write(self, part: Embeddings) -> None:
        """Append rows, residues included."""
        here = slice(self.rows_written, self.rows_written + len(part))
        for name, values in part.columns.items():
            self.file[name][here] = values
        self.checksums = checksums(part, self.checksums)
        if part.residues is not None:
            ends = self.residues_written + np.cumsum(part.lengths)
            self.file["offsets"][here.start + 1 : here.stop + 1] = ends
            self._write_residues(part.residues)
        self.rows_written = here.stop

    def _write_residues(self, values: Array) -> None:
        """Put the residues to their place in the file, past HDF5.

        They are nearly all of the bytes. HDF5 would write them under a lock that all threads of
        the process share.
        """
        dataset = self.file["residues"]
        values = np.ascontiguousarray(values, dataset.dtype)
        room = len(dataset) - self.residues_written
        if values.shape[1:] != dataset.shape[1:] or len(values) > room:
            # HDF5 would refuse this; past it, the next dataset would be written over.
            raise ValueError(f"residues {values.shape} do not fit {room} of {dataset.shape}")
        if values.size:
            if dataset.id.get_offset() is None:
                dataset[:1] = values[:1]  # HDF5 gives it its place with what is written first
            row_bytes = values.nbytes // len(values)
            self.sink.write_at(dataset.id.get_offset() + self.residues_written * row_bytes, values)
        self.residues_written += len(values)


class Sink(io.FileIO):
    """The file under an HDF5 file: on a full disk HDF5 must not know of it before it has closed.

    Told of an error while it flushes, it ends the process (seen with HDF5 2 on a full tmpfs).
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view and not self.error:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Zeros stand for what could not be written: HDF5 takes what is in memory already for
        addresses in the file, and may end the process.
        """
        view = memoryview(buffer).cast("B")
        found = super().readinto(view)
        view[found:] = bytes(len(view) - found)
        return len(view)

    def write_at(self, offset: int, values: Array) -> None:
        """Write contiguous numbers at a place in the file; other threads run meanwhile."""
        view = values.data.cast("B")
        while view:
            written = os.pwrite(self.fileno(), view[:LARGEST_WRITE], offset)
            view, offset = view[written:], offset + written

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = error
            return size or 0

    def flush(self) -> None:
        """Nothing is held back here."""


@contextmanager
def create_embedding_file(
    path: Path,
    *,
    form: OutputForm,
    records: int,
    residues: int,
    dim: int,
    attributes: Mapping[str, Any],
) -> Iterator[EmbeddingWriter]:
    """Create an HDF5 file with room for ``records`` rows and ``residues`` residues.

    Raises:
        OSError: the file cannot be written, a full disk included.
    """
    shape = form.vector_shape(dim)
    text = h5py.string_dtype()
    with Sink(path, "w+b") as sink, h5py.File(sink, "w") as file:
        file.attrs.update(attributes)
        file.create_dataset("ids", (records,), text)
        file.create_dataset("headers", (records,), text)
        for name in ("rows", "lengths", "input_lengths"):
            file.create_dataset(name, (records,), np.int64)
        file.create_dataset("precision", (records,), PRECISION_TYPE)
        for name in form.pooled_names:
            file.create_dataset(name, (records, *shape), np.float32)
        if form.per_residue:
            create_unfilled(file, "residues", (residues, *shape), np.dtype(form.residue_dtype))
        # Now and not at the end: all that says what the file is comes before any vector.
        for dataset in file.values():
            dataset.attrs[CHECKSUM] = np.uint32(0)
        if form.per_residue:
            file.create_dataset("offsets", (records + 1,), np.int64)
        writer = EmbeddingWriter(file, sink, form)
        yield writer
        for name, crc in writer.checksums.items():
            file[name].attrs.modify(CHECKSUM, np.uint32(crc))
        file.close()
        if sink.error:
            raise sink.error


def create_unfilled(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    """Create a dataset in one piece, which HDF5 does not fill."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), space, plan)


@contextmanager
def open_embedding_file(source: Path | BinaryIO) -> Iterator[h5py.File]:
    """Open a shard or a result for reading.

    Raises:
        OSError: not an HDF5 file, or one that was cut.
    """
    with h5py.File(source, "r") as file:
        yield file


class DamagedError(Exception):
    """What a file holds is not what was written to it."""


#: What reading a damaged file may end in. h5py tells of it in many ways: each of these was seen, or
#: is what Python makes of a dataset that is of another kind or size than it should be.
UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    DamagedError,
)


def read_embeddings(file: h5py.File, form: OutputForm) -> Embeddings:
    """Read a whole shard.

    Raises:
        KeyError: something is missing, a checksum perhaps.
        DamagedError: something has another checksum than when it was written.
    """
    part = Embeddings(
        rows=file["rows"][:],
        ids=list(file["ids"].asstr()[:]),
        headers=list(file["headers"].asstr()[:]),
        lengths=file["lengths"][:],
        input_lengths=file["input_lengths"][:],
        precision=file["precision"][:].astype(np.uint8),
        pooled={name: file[name][:] for name in form.pooled_names},
        residues=file["residues"][:] if form.per_residue else None,
    )
    for name, crc in checksums(part).items():
        if crc != file[name].attrs[CHECKSUM]:
            raise DamagedError(f"{name} has another checksum than when it was written")
    return part


def shard_bytes(form: OutputForm, dim: int) -> tuple[int, int]:
    """Bytes that a shard takes for each record, without its header, and for each residue."""
    numbers = len(form.layers) * dim
    per_record = 128 + 4 * numbers * len(form.pooled_names)
    per_residue = numbers * np.dtype(form.residue_dtype).itemsize if form.per_residue else 0
    return per_record, per_residue
