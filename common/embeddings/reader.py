"""Reading shards and result files, with their checksums."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Array, Embeddings, entries_of
from common.embeddings.checksums import CHECKSUM, DamagedError, checksums
from common.job.output_form import OutputForm
from common.rungs import PRECISION_CODES


@contextmanager
def open_embedding_file(source: Path | BinaryIO) -> Iterator[h5py.File]:
    """Open a shard or a result file for reading.

    Raises:
        OSError: it is not an HDF5 file, or a truncated one.
    """
    with h5py.File(source, "r") as file:
        yield file


def read_embeddings(file: h5py.File, form: OutputForm, dim: int) -> Embeddings:
    """Read all rows of a shard.

    Raises:
        KeyError: a dataset or a checksum is missing.
        DamagedError: a dataset does not have its shape, its type, or the checksum that it was
            written with.
    """
    count, shape = len(file["rows"]), form.vector_shape(dim)

    def numbers(name: str, dtype: str, *shape: int) -> Array:
        return numbers_in(file[name], name, np.dtype(dtype), shape)

    lengths = numbers("lengths", "int64", count)
    residues = int(lengths.sum())
    part = Embeddings(
        rows=numbers("rows", "int64", count),
        ids=texts_in(file["ids"], "ids", count),
        headers=texts_in(file["headers"], "headers", count),
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
    for name, crc in checksums(part).items():
        if crc != file[name].attrs[CHECKSUM]:
            raise DamagedError(f"{name} has another checksum than when it was written")
    if part.precision.max(initial=0) >= len(PRECISION_CODES):
        raise DamagedError("it has a precision that this version does not know")
    return part


def numbers_in(
    dataset: h5py.Dataset, name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> Array:
    """Read a dataset of numbers, after its type and its size were compared with what is expected.

    A damaged file may declare any: more than memory holds, or a single row that NumPy would repeat.
    """
    if (dataset.dtype, dataset.shape) != (dtype, shape):
        raise DamagedError(f"{name} is {dataset.dtype} {dataset.shape} instead of {dtype} {shape}")
    check_stored(dataset, name)
    values: Array = dataset[:]
    return values


def texts_in(dataset: h5py.Dataset, name: str, count: int) -> list[str]:
    """Read a dataset of texts, after its type and its size were compared with what is expected."""
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.shape != (count,):
        raise DamagedError(f"{name} is {dataset.dtype} {dataset.shape} instead of {count} texts")
    check_stored(dataset, name)
    return list(dataset.asstr()[:])


def check_stored(dataset: h5py.Dataset, name: str) -> None:
    """Raise DamagedError if a dataset that is not compressed declares more than the file has."""
    if dataset.chunks is None and dataset.nbytes > dataset.file.id.get_filesize():
        raise DamagedError(f"{name} declares {dataset.nbytes:,} bytes, more than the file has")
