"""The scores of frames, and the highest of each chunk."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from common.embeddings.arrays import Array
from producer.virnucpro.classifier import CLASSES, Floats

#: Letters of a frame's id after its chunk's: F1 to R3.
FRAME_LETTERS = 2


class Scored(NamedTuple):
    """Frames with their scores."""

    ids: list[str]
    contigs: Array  # [n], the number of each one's contig
    scores: Floats  # [n, 2]; NaN if a model has no embedding of the frame


class Chunks(NamedTuple):
    """The chunks of an input that have a frame with a score, in its order."""

    ids: list[str]
    contigs: Array  # [c]
    maxima: Floats  # [c, 2]
    frames_without_score: int

    @property
    def is_virus(self) -> Array:
        """Whether each chunk is called a virus ``[c]``, by VirNucPro's rule."""
        return np.asarray(self.maxima[:, 1] >= self.maxima[:, 0])


def chunks_of(blocks: Iterable[Scored]) -> Chunks:
    """Return the highest score of each class in each chunk.

    Chunks of two contigs with one name are two.
    """
    ids: list[str] = []
    contigs: list[Array] = []
    maxima: list[Floats] = []
    without = 0
    for block in chunk_by_chunk(blocks):
        known = ~np.isnan(block.scores[:, 0])
        without += int(len(known) - known.sum())
        kept = np.flatnonzero(known)
        if not len(kept):
            continue
        names = [block.ids[place][:-FRAME_LETTERS] for place in kept.tolist()]
        firsts = first_of_each(names, block.contigs[kept])
        ids += [names[place] for place in firsts.tolist()]
        contigs.append(block.contigs[kept][firsts])
        maxima.append(np.maximum.reduceat(block.scores[kept], firsts, axis=0))
    return Chunks(
        ids,
        np.concatenate(contigs) if contigs else np.zeros(0, np.int64),
        np.concatenate(maxima) if maxima else np.zeros((0, len(CLASSES)), np.float32),
        without,
    )


def chunk_by_chunk(blocks: Iterable[Scored]) -> Iterator[Scored]:
    """Yield the frames in blocks that end where a chunk does."""
    left: Scored | None = None
    for block in blocks:
        if left is not None:
            block = joined(left, block)
        left = None
        if not block.ids:
            continue
        last = block.ids[-1][:-FRAME_LETTERS], int(block.contigs[-1])
        end = len(block.ids)
        while end and (block.ids[end - 1][:-FRAME_LETTERS], int(block.contigs[end - 1])) == last:
            end -= 1
        if end:
            yield Scored(block.ids[:end], block.contigs[:end], block.scores[:end])
        left = Scored(block.ids[end:], block.contigs[end:], block.scores[end:])
    if left is not None:
        yield left


def joined(one: Scored, other: Scored) -> Scored:
    return Scored(
        one.ids + other.ids,
        np.concatenate([one.contigs, other.contigs]),
        np.concatenate([one.scores, other.scores]),
    )


def first_of_each(names: Sequence[str], contigs: Array) -> Array:
    """Return where each chunk begins."""
    is_first = np.diff(contigs, prepend=-1) != 0
    is_other = [one != other for one, other in pairwise(names)]
    is_first[1:] |= np.array(is_other, np.bool_)
    return np.flatnonzero(is_first)
