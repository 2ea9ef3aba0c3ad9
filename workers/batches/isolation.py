"""A batch that ends its processes, computed row by row: the next end names the row.

What is about to be computed is noted in the ledger before, as the process that computes it may not
live to say so. Halving the batch would end ten processes to find one of a thousand rows; this way
it is one.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.embeddings.arrays import Embeddings
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.claims import CrashRecord
from common.rungs import Rung
from common.wire.messages import Instability
from workers.engine.engine import Outcome

#: Ends of its process after which a batch is computed row by row.
CAREFUL_AFTER = 3

#: Ends of processes that computed it so, after which it is given up: if no row of its own is to
#: blame; and if rows are, but always others: then it is not they.
HOPELESS_AFTER, SCATTERED_AFTER = 2, 7

#: Processes that ended while a row was computed alone, after which it is not computed again.
BLAMED_ENOUGH = 2


class Turns:
    """Lets threads compute batches together, or one of them alone: then it is that one's batch that
    ends the process, and no other.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._together = 0
        self._alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True  # nobody else begins
            self._changed.wait_for(lambda: self._together == 0)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


def is_hopeless(trail: CrashRecord) -> bool:
    """Whether nothing can be done for a batch, by ``read_trail``."""
    return trail.isolated_crashes >= SCATTERED_AFTER or (
        trail.isolated_crashes >= HOPELESS_AFTER and not trail.suspects
    )


def read_trail(trail: CrashRecord, deaths: int) -> CrashRecord:
    """What follows from what was noted before.

    Args:
        deaths: of the batch until now. If there are no more than when the trail was noted, its
            process has not ended, but given the batch back. If it was never computed row by row,
            others may have ended them: several are in a process.
    """
    known = trail.model_copy(update={"crashes": deaths, "current_row": None})
    if trail.crashes in (0, deaths):
        return known
    row = (
        {}
        if trail.current_row is None
        else {trail.current_row: trail.suspects.get(trail.current_row, 0) + 1}
    )
    return known.model_copy(
        update={"isolated_crashes": trail.isolated_crashes + 1, "suspects": trail.suspects | row}
    )


def embed_carefully(
    records: Sequence[Record],
    trail: CrashRecord,
    *,
    follow: Callable[[CrashRecord], None],
    embed: Callable[[Record], Outcome],
) -> tuple[list[Outcome], list[Record]]:
    """Compute rows one at a time, those that are blamed for an end at the last.

    Args:
        trail: what is known of the batch.
        follow: notes what is about to be done.
        embed: computes one row.

    Returns:
        The outcomes by row, and the rows that are not computed any more.
    """
    follow(trail)
    blame = {record.row: trail.suspects.get(record.row, 0) for record in records}
    poison = [record for record in records if blame[record.row] >= BLAMED_ENOUGH]
    others = [record for record in records if blame[record.row] < BLAMED_ENOUGH]
    outcomes = {}
    for record in sorted(others, key=lambda record: blame[record.row]):
        follow(trail.model_copy(update={"current_row": record.row}))
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
        embeddings=Embeddings.concatenate([part.embeddings for part in parts], form, dim),
        unstable=tuple(bad for part in parts for bad in part.unstable),
        precision=parts[0].precision if parts else Rung.FP32,
        tokens=sum(part.tokens for part in parts),
        seconds=sum(part.seconds for part in parts),
    )
