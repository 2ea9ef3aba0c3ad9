"""Pooling: one row per segment, with its finiteness flag, in one copy to the host."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.model_specs import Family
from workers.engine.finiteness import finite_segments

#: What is always pooled.
ALWAYS = ("mean", "bos")


@dataclass(frozen=True)
class Pooled:
    """A pack's pooled vectors on the host, and which of them are finite."""

    vectors: Mapping[str, Array]  # [N, K, D] FP32 each, by name
    finite: Array  # [N] bool, over all of a segment's tokens

    @property
    def mean(self) -> Array:
        return self.vectors["mean"]

    @classmethod
    def read(cls, rows: Tensor, layers: int, more: Sequence[str] = ()) -> "Pooled":
        """Return the vectors from the result of ``pool``, once it is on the host."""
        host, names = rows.numpy(), (*ALWAYS, *more)
        vectors = host[:, :-1].reshape(len(host), len(names), layers, -1)
        return cls({name: vectors[:, i] for i, name in enumerate(names)}, host[:, -1] != 0)


def pool(hidden: Tensor, cu_seqlens: Tensor, family: Family, more: Sequence[str] = ()) -> Tensor:
    """Pool each segment of ``hidden`` ``[T, K, D]`` in FP32, without waiting for the device.

    The mean of ESM-2 is over residues, without ``<cls>`` and ``<eos>`` (as in fair-esm); that of
    DNABERT-S over all tokens (as by its authors, and in VirNucPro). ``max`` and ``std`` are over
    the same tokens.

    Args:
        more: what to pool beside the mean and the first token: ``max``, ``std``.

    Returns:
        ``[N, M K D + 1]`` for ``Pooled.read``: mean, first token, the M - 2 of ``more``, and 1 if
        all values are finite. The flag reaches the host in the same copy as the vectors.
    """
    hidden = hidden.float()
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    # One reduction sums the three parts of every segment: first token, letters and last token.
    bounds = torch.stack((starts, starts + 1, ends - 1), dim=1).flatten()
    offsets = torch.cat((bounds, ends[-1:]))
    sums = segments(hidden, "sum", offsets).view(-1, 3, *hidden.shape[1:])  # [N, 3, K, D]
    whole = family.pools_special_tokens
    counts = (ends - starts - (0 if whole else SPECIAL_TOKENS))[:, None, None]
    mean = (sums.sum(1) if whole else sums[:, 1]) / counts
    found = {"mean": mean, "bos": sums[:, 0]}
    if more:
        offsets = cu_seqlens.long() if whole else offsets
        step = slice(None) if whole else slice(1, None, 3)
    if "max" in more:
        found["max"] = segments(hidden, "max", offsets)[step]
    if "std" in more:
        found["std"] = deviation(hidden, mean, cu_seqlens, offsets, step, counts)
    # What is pooled is checked too: the total of three finite sums may overflow, or a square.
    checked = [found[name][:, None] for name in found if name != "bos"]
    flags = finite_segments(torch.cat((sums, *checked), dim=1)).float()[:, None]
    return torch.cat((*(found[name].flatten(1) for name in (*ALWAYS, *more)), flags), dim=1)


def segments(values: Tensor, how: str, offsets: Tensor) -> Tensor:
    """Reduce the parts of ``values`` ``[T, ...]`` that begin at ``offsets``."""
    return torch.segment_reduce(values, how, offsets=offsets, axis=0)


def deviation(
    hidden: Tensor, mean: Tensor, cu_seqlens: Tensor, offsets: Tensor, step: slice, counts: Tensor
) -> Tensor:
    """Return the standard deviation ``[N, K, D]`` of each segment's tokens around their mean.

    In two passes: a sum of squares less the square of a sum would cancel where the mean of a
    dimension is far from 0, as in some of ESM-2.
    """
    lengths = cu_seqlens.diff().long()
    segment = torch.repeat_interleave(lengths, output_size=len(hidden))  # [T]
    squares = (hidden - mean[segment]).square_()
    return (segments(squares, "sum", offsets)[step] / counts).sqrt()


def residue_positions(cu_seqlens: Array) -> Array:
    """Return the positions of a pack's residues: all tokens but each segment's first and last."""
    is_residue: Array = np.ones(cu_seqlens[-1], dtype=np.bool_)
    is_residue[cu_seqlens[:-1]] = is_residue[cu_seqlens[1:] - 1] = False
    return np.flatnonzero(is_residue)
