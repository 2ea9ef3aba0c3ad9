"""Tokens to vectors: one pooled row per segment, checked on the way, in one copy to the host."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.modeltable import Family
from common.shard import Array
from workers.packing import Pack
from workers.stability import finite_segments


@dataclass(frozen=True)
class Pooled:
    """A pack's pooled vectors on the host, and which of them may be used."""

    mean: Array  # [N, K, D] FP32, over what the family pools
    bos: Array  # [N, K, D] FP32, at the first token
    finite: Array  # [N] bool, over all of a segment's tokens


def pool(hidden: Tensor, cu_seqlens: Tensor, family: Family) -> Pooled:
    """Pool each segment of ``hidden`` ``[T, K, D]`` in FP32; waits for the device once.

    ESM-2's mean is over residues, without ``<cls>`` and ``<eos>`` (fair-esm); DNABERT-S's over all
    tokens (its authors, and VirNucPro).
    """
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    # Every segment falls into first token, letters and last token; one reduction sums all three.
    bounds = torch.stack((starts, starts + 1, ends - 1), dim=1).flatten()
    offsets = torch.cat((bounds, ends[-1:]))
    sums = torch.segment_reduce(hidden.float(), "sum", offsets=offsets, axis=0)
    sums = sums.view(-1, 3, *hidden.shape[1:])  # [N, 3, K, D]
    if family.pools_special_tokens:
        mean = sums.sum(1) / (ends - starts)[:, None, None]
    else:
        mean = sums[:, 1] / (ends - starts - SPECIAL_TOKENS)[:, None, None]
    # The mean too: three sums that are in range may have one that is not.
    flags = finite_segments(torch.cat((sums, mean[:, None]), dim=1)).float()[:, None]
    # What decides whether the vectors may be used comes in the same copy.
    host = torch.cat((mean.flatten(1), sums[:, 0].flatten(1), flags), dim=1).cpu().numpy()
    vectors = host[:, :-1].reshape(-1, 2, *hidden.shape[1:])
    return Pooled(vectors[:, 0], vectors[:, 1], host[:, -1] != 0)


def residues_of(hidden: Tensor, pack: Pack, finite: Array, dtype: torch.dtype) -> Array:
    """The finite segments' tokens without ``<cls>`` and ``<eos>``: ``[sum(L), K, D]``."""
    wanted: Array = np.repeat(finite, np.diff(pack.cu_seqlens))
    wanted[pack.cu_seqlens[:-1]] = wanted[pack.cu_seqlens[1:] - 1] = False
    return hidden.to(dtype).cpu().numpy()[wanted]
