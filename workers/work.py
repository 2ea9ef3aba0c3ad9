"""A batch on its way through the engine: records to segments and packs, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.batchfile import Record
from common.manifest import OutputForm
from common.messages import Instability, NonFinite
from common.rungs import Rung
from common.shard import Array
from workers.packing import Pack, Tokens
from workers.pooling import Pooled
from workers.stability import look_at, sum_up
from workers.windows import join_windows


@dataclass(frozen=True, kw_only=True)
class Work:
    """A batch as the engine sees it: N records in S segments."""

    records: Sequence[Record]  # N
    lengths: Array  # [N], letters that are embedded
    firsts: Sequence[int]  # N: each record's first segment
    tokens: Tokens  # of S segments
    layers: Sequence[int]  # resolved: from 0
    form: OutputForm
    precision: Rung

    def describe(self, segments: dict[int, NonFinite]) -> tuple[Instability, ...]:
        """What is not finite, by record, from what was seen of segments."""
        by_record: dict[int, list[NonFinite]] = {}
        for segment, seen in segments.items():
            record = int(np.searchsorted(self.firsts, segment, side="right")) - 1
            by_record.setdefault(record, []).append(seen)
        return tuple(
            Instability(
                row=self.records[i].row,
                id=self.records[i].id,
                length=int(self.lengths[i]),
                seen={self.precision: sum_up(seen)},
            )
            for i, seen in by_record.items()
        )

    def join(self, parts: Sequence[Array]) -> Array:
        """Pooled vectors of packs ``[s, K, D]`` to those of records, windows by their tokens."""
        vectors = join_windows(np.concatenate(parts), self.tokens.lengths, self.firsts)
        return concatenate([vectors])


@dataclass(frozen=True)
class PackResult:
    """What one forward pass gave."""

    pooled: Pooled
    residues: Array | None  # [sum(L), K, D] of the finite segments
    unstable: dict[int, NonFinite]  # by segment of the batch


def look_at_segment(hidden: Tensor, pack: Pack, segment: int, mean: Array) -> NonFinite:
    """What is not finite about a segment; waits for the device."""
    start, end = pack.cu_seqlens[segment : segment + 2]
    # BF16 and FP32 reach so far that finite terms can have a sum that is not.
    seen = look_at(hidden[start:end]) or look_at(torch.from_numpy(mean))
    assert seen is not None, "a sum over the segment is not finite, but all its terms are"
    return seen


def concatenate(parts: Sequence[Array]) -> Array:
    """Parts ``[n, K, D]`` one after another; a single layer has no axis of its own."""
    values = np.concatenate(parts)
    return values[:, 0] if values.shape[1] == 1 else values
