"""Windows of long records: cutting, and joining their vectors."""

from collections.abc import Sequence

import numpy as np

from common.embeddings.arrays import Array


def windows(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return the fewest windows of ``size`` letters that cover ``length`` and overlap evenly.

    Args:
        length: letters of a record.
        size: letters of a window; a shorter record is one window.
        overlap: fewest letters that neighbours share; less than ``size``.

    Returns:
        Start and end of each window, in order.
    """
    assert 0 <= overlap < size, (size, overlap)
    if length <= size:
        return [(0, length)]
    count = -(-(length - overlap) // (size - overlap))
    starts = [i * (length - size) // (count - 1) for i in range(count)]
    return [(start, start + size) for start in starts]


def cut_windows(sequences: Sequence[str], size: int, overlap: int) -> tuple[list[str], list[int]]:
    """Return the windows of all sequences, and the position of each sequence's first window."""
    pieces: list[str] = []
    firsts = []
    for sequence in sequences:
        firsts.append(len(pieces))
        pieces += [sequence[start:end] for start, end in windows(len(sequence), size, overlap)]
    return pieces, firsts


def join_windows(vectors: Array, weights: Array, firsts: Sequence[int]) -> Array:
    """Return each record's mean ``[N, ...]`` of windows ``[S, ...]``, by ``weights`` ``[S]``."""
    if len(firsts) == len(vectors):
        return vectors
    # In FP64 no sum overflows, and a mean is no larger than its terms.
    columns = weights.astype(np.float64).reshape(-1, *[1] * (vectors.ndim - 1))
    sums = np.add.reduceat(vectors * columns, firsts, axis=0)
    return (sums / np.add.reduceat(columns, firsts, axis=0)).astype(np.float32)
