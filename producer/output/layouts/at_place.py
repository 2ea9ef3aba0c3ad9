"""Writing numbers at a place of a file that is known before they are."""

import math
import os

import numpy as np

from common.embeddings.arrays import Array

#: Bytes of one write, at most: some systems refuse 2 GiB.
LARGEST_WRITE = 2**30


def bytes_of(values: Array) -> memoryview:
    """Return the bytes of an array in C order, without a copy if it is in that order."""
    return np.ascontiguousarray(values).data.cast("B") if values.size else memoryview(b"")


def array_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Return the number of bytes of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def write_at(descriptor: int, data: memoryview, place: int) -> int:
    """Write all of some bytes at a place of a file, and return the place after them.

    Raises:
        OSError: they cannot be written.
    """
    while data:
        written = os.pwrite(descriptor, data[:LARGEST_WRITE], place)
        data, place = data[written:], place + written
    return place
