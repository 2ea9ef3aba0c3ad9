"""The isolation of batches that crash their worker: each row alone, to find those that do.

The row that is computed next is saved beforehand, in the batch's crash record in the ledger, as the
process may not survive it. So one crash is enough to suspect one row. Bisection would take ten
crashes to find one of a thousand rows.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.embeddings.arrays import Embeddings
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.claims import CrashRecord
from common.rungs import Rung
from common.wire.messages import Instability
from workers.batches.lease import Lease
from workers.batches.retry_policy import RequeueError
from workers.engine.engine import Outcome

log = logging.getLogger(__name__)

#: Crashes of a batch after which its rows are isolated.
ISOLATE_AFTER = 3

#: Crashes of a batch with isolated rows after which it fails: if no row is suspected; and if rows
#: are, but so many that something else must be the cause.
MAX_UNEXPLAINED_CRASHES, MAX_ISOLATED_CRASHES = 2, 7

#: Crashes during one isolated row after which it is quarantined.
MAX_ROW_CRASHES = 2


class CrashLoopError(UserError):
    """A batch crashed too many worker processes, and no row of its own explains it."""

    def __init__(self, record: CrashRecord) -> None:
        alone = sum(record.suspects.values()) or "none"
        super().__init__(
            f"it crashed {record.crashes} worker processes, {alone} of them while one of its "
            "sequences was computed alone. See the workers' logs for the causes."
        )


class ExclusiveTurns:
    """Lets threads compute together, or one of them alone.

    A crash while one is alone is the fault of that one's batch.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._exclusive = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Take a turn together with others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Take a turn alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive)
            self._exclusive = True  # no other turn begins
            self._changed.wait_for(lambda: self._sharing == 0)
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()


class IsolationPolicy:
    """Decides how a process computes batches: several at once, or one of them row by row."""

    def __init__(self) -> None:
        self._turns = ExclusiveTurns()

    def embed(
        self,
        lease: Lease,
        records: Sequence[Record],
        form: OutputForm,
        *,
        dim: int,
        embed: Callable[[Sequence[Record]], Outcome],
    ) -> tuple[Outcome, tuple[Instability, ...]]:
        """Compute the records of a batch, each alone if the batch has crashed too often.

        Returns:
            The outcome, and the rows that are left out because they crash their worker.

        Raises:
            CrashLoopError: the batch crashes its workers, and no row explains it.
        """
        if lease.attempt.crashes < ISOLATE_AFTER:
            with self._turns.shared():
                return embed(records), ()
        outcomes, crashing = self._embed_isolated(lease, records, embed)
        return join_outcomes(outcomes, form, dim), describe_crashing(crashing, form)

    def _embed_isolated(
        self, lease: Lease, records: Sequence[Record], embed: Callable[[Sequence[Record]], Outcome]
    ) -> tuple[list[Outcome], list[Record]]:
        """Compute each record of a batch alone, while the process computes no other batch."""
        batch, crashes = lease.batch, lease.attempt.crashes
        record = update_crash_record(lease.crash_record(), crashes)
        if is_crash_loop(record):
            raise CrashLoopError(record)
        log.warning(
            "Batch %d of %s crashed %d worker processes: each of its rows is computed alone.",
            *(batch.index, batch.job, crashes),
        )
        with self._turns.exclusive():
            try:
                return embed_isolated(
                    records, record, save=lease.save_crash_record, embed=lambda row: embed([row])
                )
            except RequeueError:
                # The process goes on: no row is to be blamed for a later crash.
                lease.save_crash_record(record)
                raise


def update_crash_record(saved: CrashRecord, crashes: int) -> CrashRecord:
    """Return the crash record of a batch that crashed ``crashes`` times until now.

    If that is as often as when it was saved, the process did not crash but released the batch. If
    none was saved, the batch was never isolated, and others of its processes may be to blame.
    """
    record = saved.model_copy(update={"crashes": crashes, "current_row": None})
    if saved.crashes in (0, crashes):
        return record
    suspects, row = dict(saved.suspects), saved.current_row
    if row is not None:
        suspects[row] = suspects.get(row, 0) + 1
    return record.model_copy(
        update={"isolated_crashes": saved.isolated_crashes + 1, "suspects": suspects}
    )


def is_crash_loop(record: CrashRecord) -> bool:
    """Whether a batch crashes its workers without a row that explains it."""
    return record.isolated_crashes >= MAX_ISOLATED_CRASHES or (
        record.isolated_crashes >= MAX_UNEXPLAINED_CRASHES and not record.suspects
    )


def embed_isolated(
    records: Sequence[Record],
    crash_record: CrashRecord,
    *,
    save: Callable[[CrashRecord], None],
    embed: Callable[[Record], Outcome],
) -> tuple[list[Outcome], list[Record]]:
    """Compute each record alone, suspected ones last.

    Args:
        crash_record: of the batch.
        save: saves the crash record; called before each record.
        embed: computes one record.

    Returns:
        The outcomes by row, and the records that are left out because they crash their worker.
    """
    save(crash_record)
    crashes = {record.row: crash_record.suspects.get(record.row, 0) for record in records}
    crashing = [record for record in records if crashes[record.row] >= MAX_ROW_CRASHES]
    others = [record for record in records if crashes[record.row] < MAX_ROW_CRASHES]
    outcomes = {}
    for record in sorted(others, key=lambda record: crashes[record.row]):
        save(crash_record.model_copy(update={"current_row": record.row}))
        outcomes[record.row] = embed(record)
    save(crash_record)
    return [outcomes[row] for row in sorted(outcomes)], crashing


def describe_crashing(records: Sequence[Record], form: OutputForm) -> tuple[Instability, ...]:
    """Return why records that crash their worker have no embedding."""
    return tuple(
        Instability(
            row=record.row,
            id=record.id,
            length=form.embedded(len(record.residues)),
            reason=f"the worker process crashed {MAX_ROW_CRASHES} times while it computed this "
            "sequence alone",
        )
        for record in records
    )


def join_outcomes(parts: Sequence[Outcome], form: OutputForm, dim: int) -> Outcome:
    """Return the outcome of a batch whose rows were computed alone."""
    return Outcome(
        embeddings=Embeddings.concatenate([part.embeddings for part in parts], form, dim),
        unstable=tuple(bad for part in parts for bad in part.unstable),
        precision=parts[0].precision if parts else Rung.FP32,
        tokens=sum(part.tokens for part in parts),
        seconds=sum(part.seconds for part in parts),
    )
