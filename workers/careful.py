"""A batch that ends its processes, computed row by row: the next end names the row.

What is about to be computed is noted in the ledger before, as the process that computes it may not
live to say so. Halving the batch would end ten processes to find one of a thousand rows; this way
it is one.
"""

from collections.abc import Callable, Sequence

import numpy as np

from common.batchfile import Record
from common.ledger import Trail
from common.manifest import OutputForm
from common.messages import Instability
from common.rungs import Rung
from common.shard import Array, Embeddings
from workers.engine import Outcome

#: Ends of its process after which a batch is computed row by row; after which it is given up if no
#: row of its own is to blame; and if rows are, but always others: then it is not they.
CAREFUL_AFTER, HOPELESS_AFTER, SCATTERED_AFTER = 3, 5, 10

#: Processes that ended while a row was computed alone, after which it is not computed again.
BLAMED_ENOUGH = 2


def is_hopeless(deaths: int, trail: Trail) -> bool:
    """Whether nothing can be done for a batch that ended so many processes."""
    blamed = with_blame(trail).blamed
    return deaths >= SCATTERED_AFTER or (deaths >= HOPELESS_AFTER and not blamed)


def with_blame(trail: Trail) -> Trail:
    """What follows from what a process that ended was about to do."""
    if trail.row is None:
        return trail
    blamed = trail.blamed | {trail.row: trail.blamed.get(trail.row, 0) + 1}
    return Trail(blamed=blamed)


def embed_carefully(
    records: Sequence[Record],
    trail: Trail,
    *,
    follow: Callable[[Trail], None],
    embed: Callable[[Record], Outcome],
) -> tuple[list[Outcome], list[Record]]:
    """Compute rows one at a time, those that are blamed for an end at the last.

    Args:
        trail: what the process before noted.
        follow: notes what is about to be done.
        embed: computes one row.

    Returns:
        The outcomes by row, and the rows that are not computed any more.
    """
    trail = with_blame(trail)
    follow(trail)
    blame = {record.row: trail.blamed.get(record.row, 0) for record in records}
    poison = [record for record in records if blame[record.row] >= BLAMED_ENOUGH]
    others = [record for record in records if blame[record.row] < BLAMED_ENOUGH]
    outcomes = {}
    for record in sorted(others, key=lambda record: blame[record.row]):
        follow(Trail(row=record.row, blamed=trail.blamed))
        outcomes[record.row] = embed(record)
    follow(trail)
    return [outcomes[row] for row in sorted(outcomes)], poison


def describe_poison(records: Sequence[Record], form: OutputForm) -> tuple[Instability, ...]:
    """Why rows are not computed any more."""
    return tuple(
        Instability(
            row=record.row,
            id=record.id,
            length=form.embedded(len(record.residues)),
            reason=f"the worker process ended {BLAMED_ENOUGH} times while it computed this "
            "sequence alone",
        )
        for record in records
    )


def join_outcomes(parts: Sequence[Outcome], form: OutputForm, dim: int) -> Outcome:
    """Rows that were computed one at a time, as of one batch."""
    return Outcome(
        embeddings=join_embeddings([part.embeddings for part in parts], form, dim),
        unstable=tuple(bad for part in parts for bad in part.unstable),
        precision=parts[0].precision if parts else Rung.FP32,
        tokens=sum(part.tokens for part in parts),
        seconds=sum(part.seconds for part in parts),
    )


def join_embeddings(parts: Sequence[Embeddings], form: OutputForm, dim: int) -> Embeddings:
    """Rows of several parts, in their order; of none at all, too."""
    width = (dim,) if len(form.layers) == 1 else (len(form.layers), dim)

    def joined(values: Sequence[Array], empty: Array) -> Array:
        return np.concatenate([empty, *values])

    residues: Array | None = None
    if form.per_residue:
        given = [part.residues for part in parts if part.residues is not None]
        residues = joined(given, np.zeros((0, *width), form.residue_dtype))
    return Embeddings(
        rows=joined([part.rows for part in parts], np.zeros(0, np.int64)),
        headers=[header for part in parts for header in part.headers],
        ids=[id_ for part in parts for id_ in part.ids],
        lengths=joined([part.lengths for part in parts], np.zeros(0, np.int64)),
        input_lengths=joined([part.input_lengths for part in parts], np.zeros(0, np.int64)),
        precision=joined([part.precision for part in parts], np.zeros(0, np.uint8)),
        pooled={
            name: joined([part.pooled[name] for part in parts], np.zeros((0, *width), np.float32))
            for name in form.pooled_names
        },
        residues=residues,
    )
