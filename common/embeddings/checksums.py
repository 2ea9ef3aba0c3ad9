"""CRC-32 checksums of the datasets of a shard or of a result file."""

from collections.abc import Mapping

import numpy as np

from common.crc import combined, crc32
from common.embeddings.arrays import Array, Embeddings

#: The attribute of a dataset that holds its checksum.
CHECKSUM = "crc32"


class DamagedError(Exception):
    """A file's contents are not what was written to it."""


def checksums(part: Embeddings, previous: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the CRC-32 of each dataset, continued from ``previous``, those of earlier parts."""
    values, previous = part.columns | part.ragged, previous or {}
    return {
        name: continued(previous.get(name, 0), values[name], part.checksums.get(name))
        for name in values
    }


def continued(previous: int, values: Array | list[str], known: int | None) -> int:
    """Return the CRC-32 of what ``previous`` is of, and some values behind it.

    Args:
        known: the CRC-32 of the values alone, if it is known.
    """
    if known is None:
        return checksum(values, previous)
    if not previous:
        return known
    if isinstance(values, list):  # how many bytes they are is not known
        return checksum(values, previous)
    return combined(previous, known, values.nbytes)


def checksum(values: Array | list[str], previous: int = 0) -> int:
    if isinstance(values, list):
        return crc32("\n".join([*values, ""]).encode(), previous)
    return crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, previous)
