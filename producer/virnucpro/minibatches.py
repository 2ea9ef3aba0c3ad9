"""Rows of a table of features that need not fit in memory, shuffled or in order."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from common.embeddings.arrays import Array

#: Rows that are read together, in one slice: random places one by one would be slow on a disk.
SLICE_ROWS = 128

#: Bytes of features that are held in memory, and the fewest slices of them.
BUFFER_BYTES, FEWEST_SLICES = 256 * 2**20, 4

#: The fewest rows a minibatch may be set to have: a part of so many or fewer still has two rows,
#: which batch normalisation needs.
FEWEST_ROWS = 4


class Features(Protocol):
    """A table of features float32 ``[n, D]``: a NumPy array, a memory map, or an HDF5 dataset."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> Array: ...


class Rows(NamedTuple):
    """Some rows of a table."""

    places: Array  # in the table, int64 [m]
    features: Array  # float32 [m, D]


class RowReader:
    """Chosen rows of a table of features, read in slices into a buffer of bounded memory."""

    def __init__(self, features: Features, chosen: Array) -> None:
        """Read the rows where ``chosen``, bool ``[n]``, is true."""
        self._features = features
        self._chosen = chosen
        starts = np.arange(0, len(chosen), SLICE_ROWS)
        self._starts = starts[np.add.reduceat(chosen, starts, dtype=np.int64) > 0]

    def in_order(self) -> Iterator[Rows]:
        """Yield all chosen rows, a buffer at a time, in the table's order."""
        return self._buffers(self._starts)

    def minibatches(self, generator: np.random.Generator, rows: int) -> Iterator[Rows]:
        """Yield all chosen rows in random order, in nearly equal minibatches.

        Slices come in random order, and rows are shuffled among those of one buffer. The order does
        not depend on where the features are.

        Args:
            generator: the source of the order.
            rows: the most rows of a minibatch, at least ``FEWEST_ROWS``; each has at least two, if
                two are chosen.
        """
        assert rows >= FEWEST_ROWS
        for buffer in self._buffers(generator.permutation(self._starts)):
            order = generator.permutation(len(buffer.places))
            for part in np.array_split(order, -(-len(order) // rows)):
                yield Rows(buffer.places[part], buffer.features[part])

    def _buffers(self, starts: Array) -> Iterator[Rows]:
        """Yield the chosen rows of slices; each buffer is overwritten by the next."""
        if not len(starts):
            return
        width = self._features.shape[1]
        most = max(FEWEST_SLICES, BUFFER_BYTES // (4 * max(width, 1) * SLICE_ROWS))
        space = np.empty((min(most, len(starts)) * SLICE_ROWS, width), np.float32)
        for some in np.array_split(starts, -(-len(starts) // most)):
            places = np.concatenate([self._places(start) for start in some])
            filled = 0
            for start in some:
                stop = start + SLICE_ROWS
                read = self._features[int(start) : int(stop)][self._chosen[start:stop]]
                space[filled : filled + len(read)] = read
                filled += len(read)
            yield Rows(places, space[:filled])

    def _places(self, start: int) -> Array:
        return start + np.flatnonzero(self._chosen[start : start + SLICE_ROWS])


def finite_rows(features: Features) -> Array:
    """Return which rows of a table have finite values alone, bool ``[n]``."""
    everything = np.ones(features.shape[0], bool)
    reader = RowReader(features, everything)
    parts = [np.isfinite(rows.features).all(axis=1) for rows in reader.in_order()]
    return np.concatenate([np.zeros(0, bool), *parts])
