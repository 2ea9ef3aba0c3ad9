"""Reading shards and result files, with their checksums."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.checksums import CHECKSUM, checksums
from common.job.output_form import OutputForm


class DamagedError(Exception):
    """A file's contents are not what was written to it."""


#: The errors that reading a damaged file raises. h5py reports damage in many ways: each of these
#: was seen, or is what Python raises for a dataset of another type or size than expected.
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


@contextmanager
def open_embedding_file(source: Path | BinaryIO) -> Iterator[h5py.File]:
    """Open a shard or a result file for reading.

    Raises:
        OSError: it is not an HDF5 file, or a truncated one.
    """
    with h5py.File(source, "r") as file:
        yield file


def read_embeddings(file: h5py.File, form: OutputForm) -> Embeddings:
    """Read all rows of a shard.

    Raises:
        KeyError: a dataset or a checksum is missing.
        DamagedError: a dataset's checksum is not the one it was written with.
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
