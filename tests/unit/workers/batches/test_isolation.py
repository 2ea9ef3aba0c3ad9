"""Batches that crash their processes: how the rows that do so are found, and all others kept."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.claims import CrashRecord
from common.rungs import PRECISION_CODES, Rung
from common.wire.messages import Instability
from tests.support.shards import embeddings_of
from workers.batches.isolation import (
    ISOLATE_AFTER,
    MAX_ISOLATED_CRASHES,
    MAX_ROW_CRASHES,
    MAX_UNEXPLAINED_CRASHES,
    ExclusiveTurns,
    describe_crashing,
    embed_isolated,
    is_crash_loop,
    join_outcomes,
    update_crash_record,
)
from workers.engine.engine import Outcome

DIM = 4
FORM = OutputForm(max_residues=1022)


class CrashedError(BaseException):
    """The process has crashed."""


class RequeuedError(Exception):
    """The process goes on, but not with this batch."""


def records_of(rows: Iterable[int]) -> list[Record]:
    return [Record(row, f"id{row} words", "MKV" + row % 5 * "L") for row in rows]


def outcome_of(records: Sequence[Record], form: OutputForm = FORM) -> Outcome:
    return Outcome(
        embeddings=embeddings_of(records, form, DIM),
        unstable=(),
        precision=Rung.FP16,
        tokens=len(records),
        seconds=0.5,
    )


class Batch:
    """What the ledger and the workers do with a batch, some rows of which end their process."""

    def __init__(self, rows: Iterable[int], crashing: Iterable[int]) -> None:
        self.records = records_of(rows)
        self.crashing = set(crashing)
        self.crashes = 0
        self.crash_record = CrashRecord()
        self.computed: list[list[int]] = []  # rows, by process

    def save(self, record: CrashRecord) -> None:
        self.crash_record = record

    def embed(self, record: Record) -> Outcome:
        self.computed[-1].append(record.row)
        if record.row in self.crashing:
            raise CrashedError
        return outcome_of([record])

    def attempt(self) -> tuple[list[int], list[int]] | None:
        """The rows with numbers and those that are given up; None if nothing can be done.

        Raises:
            CrashedError: the process did.
        """
        self.computed.append([])
        try:
            if self.crashes < ISOLATE_AFTER:
                for record in self.records:
                    self.embed(record)
                return [record.row for record in self.records], []
            crash_record = update_crash_record(self.crash_record, self.crashes)
            if is_crash_loop(crash_record):
                return None
            parts, left_out = embed_isolated(
                self.records, crash_record, save=self.save, embed=self.embed
            )
        except CrashedError:
            self.crashes += 1
            raise
        joined = join_outcomes(parts, FORM, DIM)
        return joined.embeddings.rows.tolist(), [record.row for record in left_out]

    def run(self) -> tuple[list[int], list[int]] | None:
        while True:
            try:
                return self.attempt()
            except CrashedError:
                assert self.crashes <= ISOLATE_AFTER + MAX_ISOLATED_CRASHES


rows = st.lists(st.integers(0, 50), unique=True, min_size=1, max_size=20).map(sorted)


@given(rows=rows, data=st.data())
def test_rows_that_end_their_process_are_found_and_all_others_are_computed(rows, data):
    most = (MAX_ISOLATED_CRASHES - 1) // MAX_ROW_CRASHES
    crashing = data.draw(st.sets(st.sampled_from(rows), max_size=min(most, len(rows))))
    batch = Batch(rows, crashing)
    assert batch.run() == ([row for row in rows if row not in crashing], sorted(crashing))
    assert batch.crashes == (ISOLATE_AFTER + MAX_ROW_CRASHES * len(crashing) if crashing else 0)
    for row in crashing:
        assert sum(row in computed for computed in batch.computed) <= 5


@given(rows=rows, data=st.data())
def test_a_batch_with_too_many_such_rows_ends_a_bounded_number_of_processes(rows, data):
    crashing = data.draw(st.sets(st.sampled_from(rows)))
    batch = Batch(rows, crashing)
    found = batch.run()
    assert (found is None) == (MAX_ROW_CRASHES * len(crashing) >= MAX_ISOLATED_CRASHES)
    assert batch.crashes <= ISOLATE_AFTER + MAX_ISOLATED_CRASHES


@given(rows=rows, data=st.data())
def test_a_row_is_not_blamed_for_a_process_that_gave_its_batch_back(rows, data):
    batch = Batch(rows, [])
    batch.crashes = ISOLATE_AFTER
    for row in data.draw(st.lists(st.sampled_from(rows), max_size=10)):

        def requeue(record: Record, at: int = row) -> Outcome:
            if record.row == at:
                raise RequeuedError
            return outcome_of([record])

        crash_record = update_crash_record(batch.crash_record, batch.crashes)
        with pytest.raises(RequeuedError):
            embed_isolated(batch.records, crash_record, save=batch.save, embed=requeue)
        assert batch.crash_record.current_row == row
    assert batch.run() == (rows, [])


@given(waiting=st.integers(0, 20))
def test_a_batch_that_waited_while_another_ended_its_process_is_not_to_blame(waiting):
    batch = Batch([1, 2], [])
    batch.crashes = ISOLATE_AFTER + waiting
    assert batch.run() == ([1, 2], [])


def test_a_row_is_not_blamed_twice_for_one_end():
    batch = Batch([1, 2], [2])
    batch.crashes = ISOLATE_AFTER
    with pytest.raises(CrashedError):
        batch.attempt()
    once = update_crash_record(batch.crash_record, batch.crashes)
    assert (once.isolated_crashes, once.suspects, once.current_row) == (1, {2: 1}, None)
    batch.save(once)
    assert update_crash_record(batch.crash_record, batch.crashes) == once


def test_a_batch_that_ends_its_processes_between_its_rows_is_given_up():
    batch = Batch([1, 2], [])
    batch.crashes = ISOLATE_AFTER
    for _ in range(MAX_UNEXPLAINED_CRASHES):
        assert not is_crash_loop(update_crash_record(batch.crash_record, batch.crashes))
        assert batch.attempt() == ([1, 2], [])
        batch.crashes += 1  # while it wrote the shard
    assert is_crash_loop(update_crash_record(batch.crash_record, batch.crashes))
    assert batch.attempt() is None


def test_rows_that_are_blamed_are_computed_last():
    batch = Batch(range(5), [])
    batch.computed.append([])
    crash_record = CrashRecord(crashes=4, isolated_crashes=1, suspects={1: 1})
    parts, _ = embed_isolated(batch.records, crash_record, save=batch.save, embed=batch.embed)
    assert batch.computed == [[0, 2, 3, 4, 1]]
    assert [part.embeddings.rows.tolist() for part in parts] == [[0], [1], [2], [3], [4]]


def test_what_is_to_be_computed_is_noted_before():
    batch, noted = Batch(range(3), []), []

    def embed(record: Record) -> Outcome:
        noted.append((batch.crash_record.current_row, record.row))
        return outcome_of([record])

    crash_record = CrashRecord(crashes=3)
    embed_isolated(batch.records, crash_record, save=batch.save, embed=embed)
    assert noted == [(0, 0), (1, 1), (2, 2)]
    assert batch.crash_record == crash_record  # once they are done


def test_why_a_row_is_given_up_is_said():
    (row,) = describe_crashing(records_of([4]), OutputForm(max_residues=5))
    assert row == Instability(
        row=4,
        id="id4",
        length=5,
        reason="the worker process crashed 2 times while it computed this sequence alone",
    )


# --- rows that were computed one at a time ------------------------------------------------------


def test_what_was_not_finite_of_each_row_and_what_it_took_are_together():
    bad = Instability(row=1, id="id1", length=4)
    without = Outcome(embeddings_of([], FORM, DIM), (bad,), Rung.FP16, 0, 0.25)
    joined = join_outcomes([outcome_of(records_of([0])), without], FORM, DIM)
    assert joined.unstable == (bad,)
    assert joined.embeddings.rows.tolist() == [0]
    assert joined.embeddings.precision.tolist() == [PRECISION_CODES[Rung.FP16]]
    assert (joined.precision, joined.tokens, joined.seconds) == (Rung.FP16, 1, 0.75)


# --- together, or alone -------------------------------------------------------------------------


def test_one_who_is_alone_waits_for_those_before_and_keeps_out_those_after():
    turns, order = ExclusiveTurns(), []
    first_is_in, first_may_go = threading.Event(), threading.Event()
    alone_is_in, alone_may_go = threading.Event(), threading.Event()

    def first() -> None:
        with turns.shared():
            first_is_in.set()
            first_may_go.wait()
            order.append("first")

    def alone() -> None:
        with turns.exclusive():
            alone_is_in.set()
            alone_may_go.wait()
            order.append("alone")

    def later() -> None:
        with turns.shared():
            order.append("later")

    with ThreadPoolExecutor(3) as threads:
        threads.submit(first)
        assert first_is_in.wait(5)
        threads.submit(alone)
        assert not alone_is_in.wait(0.05)
        first_may_go.set()
        assert alone_is_in.wait(5)
        third = threads.submit(later)
        assert not third.done()
        alone_may_go.set()
        third.result(5)
    assert order == ["first", "alone", "later"]


def test_others_are_together_and_of_those_alone_there_is_one():
    turns, together = ExclusiveTurns(), threading.Barrier(4)
    inside, most = 0, 0

    def share(_: int) -> None:
        with turns.shared():
            together.wait(5)

    def be_alone(_: int) -> None:
        nonlocal inside, most
        with turns.exclusive():
            inside += 1
            most = max(most, inside)
            inside -= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(share, range(4)))
        list(threads.map(be_alone, range(100)))
    assert most == 1


def test_whoever_fails_makes_room():
    turns = ExclusiveTurns()
    for turn in (turns.exclusive, turns.shared, turns.exclusive):
        with pytest.raises(ValueError, match="no"), turn():
            raise ValueError("no")
