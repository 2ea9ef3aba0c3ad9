"""The features of frames: the vectors of two models, side by side, joined by row."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.errors import UserError
from producer.output.contents import Rows
from producer.output.writing import parts

#: What of each record a classifier needs.
KIND = "mean"


class Features(NamedTuple):
    """The features of n frames that follow each other in the input."""

    ids: list[str]
    rows: Array  # [n]
    vectors: Array  # float32 [n, D]; NaN where a model has no embedding


def features_of(dna: Rows, proteins: Rows) -> Iterator[Features]:
    """Return the features of all frames: the vector of the DNA, then that of the protein.

    Args:
        dna: the rows of the job with the bases of each frame.
        proteins: those of the job with the amino acids, in the same order.

    Raises:
        UserError: they are not of the same frames, or a shard cannot be read.
    """
    return side_by_side(blocks_of(dna), blocks_of(proteins))


def side_by_side(first: Iterator[Features], second: Iterator[Features]) -> Iterator[Features]:
    """Yield the vectors of the same frames side by side, however they come in blocks.

    Raises:
        UserError: they are of other frames.
    """
    one = other = None
    while True:
        one = one or next(first, None)
        other = other or next(second, None)
        if one is None or other is None:
            break
        count = min(len(one.rows), len(other.rows))
        (left, one), (right, other) = split(one, count), split(other, count)
        check_same(left, right)
        vectors = np.concatenate([left.vectors, right.vectors], axis=1)
        yield Features(left.ids, left.rows, vectors)
    if one is not None or other is not None:
        raise other_frames()


def blocks_of(rows: Rows) -> Iterator[Features]:
    """Yield the mean vectors of a job, in blocks."""
    form = rows.form.model_copy(update={"include": (KIND,)})
    try:
        for part in parts(rows, form, None):
            rows.check(part.block, part.rows)
            yield of_embeddings(part.rows)
    finally:
        rows.end()


def of_embeddings(found: Embeddings) -> Features:
    return Features(found.ids, found.rows, np.asarray(found.pooled[KIND], np.float32))


def split(block: Features, count: int) -> tuple[Features, Features | None]:
    """Return the first frames of a block, and the others, if there are any."""
    ids, rows, vectors = block
    first = Features(ids[:count], rows[:count], vectors[:count])
    if count == len(rows):
        return first, None
    return first, Features(ids[count:], rows[count:], vectors[count:])


def check_same(one: Features, other: Features) -> None:
    """Raise UserError unless two blocks are of the same frames."""
    if one.ids != other.ids or not np.array_equal(one.rows, other.rows):
        raise other_frames()


def other_frames() -> UserError:
    return UserError(
        "The two models have embeddings of other frames: their jobs are not of one input. Submit "
        "it again."
    )
