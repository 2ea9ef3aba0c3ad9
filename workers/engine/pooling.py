"""Pooling: one row per segment, with its finiteness flag, in one copy to the host."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.model_specs import Family
from workers.engine.finiteness import finite_segments


@dataclass(frozen=True)
class Pooled:
    """A pack's pooled vectors on the host, and which of them are finite."""

    mean: Array  # [N, K, D] FP32, over the tokens that the family pools
    bos: Array  # [N, K, D] FP32, at the first token
    finite: Array  # [N] bool, over all of a segment's tokens

    @classmethod
    def read(cls, rows: Tensor, layers: int) -> "Pooled":
        """Return the vectors from the result of ``pool``, once it is on the host."""
        host = rows.numpy()
        vectors = host[:, :-1].reshape(len(host), 2, layers, -1)
        return cls(vectors[:, 0], vectors[:, 1], host[:, -1] != 0)


def pool(hidden: Tensor, cu_seqlens: Tensor, family: Family) -> Tensor:
    """Pool each segment of ``hidden`` ``[T, K, D]`` in FP32, without waiting for the device.

    The mean of ESM-2 is over residues, without ``<cls>`` and ``<eos>`` (as in fair-esm); that of
    DNABERT-S over all tokens (as by its authors, and in VirNucPro).

    Returns:
        ``[N, 2 K D + 1]`` for ``Pooled.read``: mean, first token, and 1 if all values are finite.
        The flag reaches the host in the same copy as the vectors.
    """
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    # One reduction sums the three parts of every segment: first token, letters and last token.
    bounds = torch.stack((starts, starts + 1, ends - 1), dim=1).flatten()
    offsets = torch.cat((bounds, ends[-1:]))
    sums = torch.segment_reduce(hidden.float(), "sum", offsets=offsets, axis=0)
    sums = sums.view(-1, 3, *hidden.shape[1:])  # [N, 3, K, D]
    if family.pools_special_tokens:
        mean = sums.sum(1) / (ends - starts)[:, None, None]
    else:
        mean = sums[:, 1] / (ends - starts - SPECIAL_TOKENS)[:, None, None]
    # The mean is checked too: the total of three finite sums may overflow.
    flags = finite_segments(torch.cat((sums, mean[:, None]), dim=1)).float()[:, None]
    return torch.cat((mean.flatten(1), sums[:, 0].flatten(1), flags), dim=1)


def residue_positions(cu_seqlens: Array) -> Array:
    """Return the positions of a pack's residues: all tokens but each segment's first and last."""
    is_residue: Array = np.ones(cu_seqlens[-1], dtype=np.bool_)
    is_residue[cu_seqlens[:-1]] = is_residue[cu_seqlens[1:] - 1] = False
    return np.flatnonzero(is_residue)
