"""Reading shards and result files, with their checksums."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Array, Embeddings, entries_of
from common.embeddings.checksums import CHECKSUM, DamagedError, checksums
from common.job.output_form import OutputForm
from common.rungs import PRECISION_CODES

#: The datasets of texts.
TEXTS = ("ids", "headers")


class SourceFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """An HDF5 file for reading whose numbers are read without HDF5.

    They are nearly all of the bytes, and HDF5 reads under a lock that all threads share.
    """

    def __init__(self, source: BinaryIO) -> None:
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fileobj_driver(h5py.h5fd.fileobj_driver, source)
        name = repr(source).encode("ascii", "replace")
        super().__init__(h5py.h5f.open(name, h5py.h5f.ACC_RDONLY, access))
        self.source = source
        self._opened: dict[str, h5py.h5d.DatasetID] = {}

    def dataset(self, name: str) -> "h5py.h5d.DatasetID":
        """Open a dataset; ``file[name]`` takes several times as long.

        Raises:
            KeyError: there is none.
        """
        if name not in self._opened:
            self._opened[name] = h5py.h5d.open(self.id, name.encode())
        return self._opened[name]

    def checksum(self, name: str) -> int:
        """Return the checksum that a dataset was written with.

        Raises:
            KeyError: there is none.
        """
        crc = np.zeros((), np.uint32)
        h5py.h5a.open(self.dataset(name), CHECKSUM.encode()).read(crc)
        return int(crc)


@contextmanager
def open_embedding_file(source: Path | BinaryIO) -> Iterator[SourceFile]:
    """Open a shard or a result file for reading.

    Raises:
        OSError: it is not an HDF5 file, or a truncated one.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        yield stack.enter_context(SourceFile(opened))


def read_embeddings(
    file: SourceFile, form: OutputForm, dim: int, with_texts: bool = True
) -> Embeddings:
    """Read all rows of a shard.

    Args:
        with_texts: whether ids and headers are read. If not, they are empty, and the checksums
            that they were written with are believed: the shard must have been proven.

    Raises:
        KeyError: a dataset or a checksum is missing.
        DamagedError: a dataset does not have its shape, its type, or the checksum that it was
            written with.
    """
    count, shape = file.dataset("rows").shape[0], form.vector_shape(dim)

    def numbers(name: str, dtype: str, *shape: int) -> Array:
        return numbers_in(file, name, np.dtype(dtype), shape)

    def texts(name: str) -> list[str]:
        return texts_in(file, name, count) if with_texts else [""] * count

    lengths = numbers("lengths", "int64", count)
    residues = int(lengths.sum())
    part = Embeddings(
        rows=numbers("rows", "int64", count),
        ids=texts("ids"),
        headers=texts("headers"),
        lengths=lengths,
        input_lengths=numbers("input_lengths", "int64", count),
        precision=numbers("precision", "uint8", count).astype(np.uint8),
        pooled={name: numbers(name, "float32", count, *shape) for name in form.pooled_names},
        residues=numbers("residues", form.residue_dtype, residues, *shape)
        if form.per_residue
        else None,
        scores={
            name: numbers(
                name,
                form.score_dtype(name),
                entries_of(name, lengths),
                *form.score_shape(name),
            )
            for name in form.scores
        },
    )
    stored = {name: file.checksum(name) for name in (*part.columns, *part.ragged)}
    believed = {} if with_texts else {name: stored[name] for name in TEXTS}
    found = checksums(replace(part, checksums=believed))
    for name, crc in found.items():
        if crc != stored[name]:
            raise DamagedError(f"{name} has another checksum than when it was written")
    if part.precision.max(initial=0) >= len(PRECISION_CODES):
        raise DamagedError("it has a precision that this version does not know")
    return replace(part, checksums=found)


def numbers_in(
    file: SourceFile, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> Array:
    """Read a dataset of numbers, after its type and its size were compared with what is expected.

    A damaged file may declare any: more than memory holds, or a single row that NumPy would repeat.
    """
    dataset = file.dataset(name)
    if (dataset.dtype, dataset.shape) != (dtype, shape):
        raise DamagedError(f"{name} is {dataset.dtype} {dataset.shape} instead of {dtype} {shape}")
    place = dataset.get_offset()
    if place is None:  # it has no bytes, or is in several pieces
        return values_of(dataset, name)
    if place + math.prod(shape) * dtype.itemsize > file.id.get_filesize():
        raise DamagedError(f"{name} ends behind the end of the file")
    values: Array = np.empty(shape, dtype)
    view = values.reshape(-1).view(np.uint8).data
    file.source.seek(place)
    while view:
        count = file.source.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise DamagedError(f"{name} ends before its last value")
        view = view[count:]
    return values


def texts_in(file: SourceFile, name: str, count: int) -> list[str]:
    """Read a dataset of texts, after its type and its size were compared with what is expected."""
    dataset = file.dataset(name)
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.shape != (count,):
        raise DamagedError(f"{name} is {dataset.dtype} {dataset.shape} instead of {count} texts")
    return [text.decode() for text in values_of(dataset, name)]


def values_of(dataset: "h5py.h5d.DatasetID", name: str) -> Array:
    """Read a dataset by HDF5."""
    found = h5py.Dataset(dataset)
    check_stored(found, name)
    values: Array = found[:]
    return values


def check_stored(dataset: h5py.Dataset, name: str) -> None:
    """Raise DamagedError if a dataset that is not compressed declares more than the file has."""
    if dataset.chunks is None and dataset.nbytes > dataset.file.id.get_filesize():
        raise DamagedError(f"{name} declares {dataset.nbytes:,} bytes, more than the file has")
