"""Long records to windows and back: pure functions."""

from collections.abc import Sequence

import numpy as np

from common.embeddings.arrays import Array


def windows(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """The fewest windows of ``size`` letters that cover ``length`` and overlap evenly.

    Args:
        length: letters of a record.
        size: letters of a window; a record up to it is a window of its own.
        overlap: letters that neighbours share at least; less than ``size``.

    Returns:
        Start and end of each, in order.
    """
    assert 0 <= overlap < size, (size, overlap)
    if length <= size:
        return [(0, length)]
    count = -(-(length - overlap) // (size - overlap))
    starts = [i * (length - size) // (count - 1) for i in range(count)]
    return [(start, start + size) for start in starts]


def cut_windows(sequences: Sequence[str], size: int, overlap: int) -> tuple[list[str], list[int]]:
    """Every sequence's windows, one after another, and where each sequence's first one is."""
    pieces: list[str] = []
    firsts = []
    for sequence in sequences:
        firsts.append(len(pieces))
        pieces += [sequence[start:end] for start, end in windows(len(sequence), size, overlap)]
    return pieces, firsts


def join_windows(vectors: Array, weights: Array, firsts: Sequence[int]) -> Array:
    """Mean of each record's windows ``[S, ...]``, weighted by ``weights`` ``[S]``: ``[N, ...]``."""
    if len(firsts) == len(vectors):
        return vectors
    # In FP64 nothing overflows on the way; and a mean is no larger than what it is of.
    columns = weights.astype(np.float64).reshape(-1, *[1] * (vectors.ndim - 1))
    sums = np.add.reduceat(vectors * columns, firsts, axis=0)
    return (sums / np.add.reduceat(columns, firsts, axis=0)).astype(np.float32)
