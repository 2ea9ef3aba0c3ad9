"""The embeddings of some records, as arrays."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Rows with their numbers. ``W`` is ``(D,)``, or ``(K, D)`` if K > 1 layers were asked for."""

    rows: NDArray[np.int64]  # [n], position in the input
    headers: list[str]  # n
    ids: list[str]  # n, each header's first word
    lengths: NDArray[np.int64]  # [n], residues embedded
    input_lengths: NDArray[np.int64]  # [n], residues in the input
    precision: NDArray[np.uint8]  # [n], PRECISION_CODES
    pooled: Mapping[str, Array]  # "mean", "bos": float32 [n, *W]
    residues: Array | None  # [sum(lengths), *W]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> dict[str, Any]:
        """What has one entry for each row, by the name of its dataset."""
        return {
            "rows": self.rows,
            "ids": self.ids,
            "headers": self.headers,
            "lengths": self.lengths,
            "input_lengths": self.input_lengths,
            "precision": self.precision,
            **self.pooled,
        }


def checksums(part: Embeddings, before: Mapping[str, int] | None = None) -> dict[str, int]:
    """CRC-32 of each dataset, after those of the parts before this one."""
    values = part.columns | ({} if part.residues is None else {"residues": part.residues})
    return {name: checksum(values[name], (before or {}).get(name, 0)) for name in values}


def checksum(values: Array | list[str], before: int) -> int:
    if isinstance(values, list):
        return zlib.crc32("".join(f"{value}\n" for value in values).encode(), before)
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, before)
