"""Cutting contigs into chunks of equal length, as VirNucPro does."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Chunks(NamedTuple):
    """The chunks of several contigs, in their order."""

    contigs: Numbers  # the place of each one's contig
    numbers: Numbers  # in its contig, from 0
    starts: Numbers  # in its contig
    ends: Numbers


def chunk_bounds(length: int, size: int) -> list[tuple[int, int]]:
    """Return the start and the end of each chunk of a contig.

    Args:
        length: of the contig, at least 1.
        size: of a chunk, at most.
    """
    found = chunks_of(np.array([length]), size)
    return list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))


def chunks_of(lengths: Numbers, size: int | None) -> Chunks:
    """Return the chunks of contigs.

    Of L bases there are n = ⌈L / size⌉. What n chunks have more than L is shared as an overlap by
    the steps from one chunk to the next. There is a step less than chunks, so that the last chunk
    may be shorter. Source: ``split_fasta_chunk`` of VirNucPro.

    Args:
        lengths: of the contigs ``[c]``, each at least 1.
        size: of a chunk, at most; None: a contig is one chunk.

    Raises:
        ValueError: a contig has no letters.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and lengths.min() < 1:
        raise ValueError("a contig without letters has no chunks")
    sizes = lengths if size is None else np.full(len(lengths), size, np.int64)
    counts = -(-lengths // sizes)
    shared = counts * sizes - lengths
    each, rest = shared // counts, shared % counts
    one_more = np.minimum(counts - 1, each + rest)
    contigs = np.repeat(np.arange(len(lengths)), counts)
    numbers = np.arange(len(contigs)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = numbers * (sizes - each)[contigs] - np.minimum(numbers, one_more[contigs])
    ends = np.minimum(starts + sizes[contigs], lengths[contigs])
    return Chunks(contigs, numbers, starts, ends)
