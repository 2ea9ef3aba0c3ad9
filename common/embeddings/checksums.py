"""CRC-32 checksums of the datasets of a shard or of a result file."""

from collections.abc import Mapping

import numpy as np

from common.crc import crc32
from common.embeddings.arrays import Array, Embeddings

#: The attribute of a dataset that holds its checksum.
CHECKSUM = "crc32"


class DamagedError(Exception):
    """A file's contents are not what was written to it."""


def checksums(part: Embeddings, previous: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the CRC-32 of each dataset, continued from ``previous``, those of earlier parts."""
    values = part.columns | part.ragged
    return {name: checksum(values[name], (previous or {}).get(name, 0)) for name in values}


def checksum(values: Array | list[str], previous: int) -> int:
    if isinstance(values, list):
        return crc32("".join(f"{value}\n" for value in values).encode(), previous)
    return crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, previous)
