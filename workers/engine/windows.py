"""Windows of long records: cutting, and joining their vectors."""

from collections.abc import Mapping, Sequence

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


def join_windows(
    vectors: Mapping[str, Array], weights: Array, firsts: Sequence[int]
) -> Mapping[str, Array]:
    """Return each record's vectors ``[N, ...]`` of those of windows ``[S, ...]``, by name.

    ``max`` is the largest of all windows, others are means. ``std`` is that of the tokens of all
    windows, which have the same weights as in the mean, around the mean of the record.

    Args:
        vectors: ``[S, ...]``; those with ``std`` have ``mean`` too.
        weights: ``[S]``, of each window in a mean.
        firsts: each record's first window.
    """
    if len(firsts) == len(weights):
        return vectors

    def mean(values: Array) -> Array:
        # In FP64 no sum overflows, and a mean is no larger than its terms.
        columns = weights.astype(np.float64).reshape(-1, *[1] * (values.ndim - 1))
        sums: Array = np.add.reduceat(values * columns, firsts, axis=0)
        return sums / np.add.reduceat(columns, firsts, axis=0)

    joined: dict[str, Array] = {}
    for name, values in vectors.items():
        if name == "max":
            joined[name] = np.maximum.reduceat(values, firsts, axis=0)
        elif name == "std":
            means = vectors["mean"].astype(np.float64)
            around = mean(means).repeat(np.diff([*firsts, len(weights)]), axis=0)
            squares = values.astype(np.float64) ** 2 + (means - around) ** 2
            joined[name] = np.sqrt(mean(squares)).astype(np.float32)
        else:
            joined[name] = mean(values).astype(np.float32)
    return joined
