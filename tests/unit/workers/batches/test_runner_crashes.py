"""Batches that crash their worker process: each row alone, until those that do so are found."""

import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from common.job.output_form import OutputForm
from common.job.quarantine import read_quarantine
from common.job.records import Record
from common.ledger.events import EventKind
from common.rungs import PRECISION_CODES
from common.wire.messages import Batch, Status
from tests.support.jobs import LETTERS_PER_RECORD, TOKENS_PER_RECORD
from tests.support.processes import wait_until
from tests.support.worlds import (
    FP16,
    ROWS,
    SELECTIVE,
    EndedError,
    FakeEngine,
    World,
    run_first_rung,
)
from workers.batches.retry_policy import RequeueError
from workers.engine.device import DeviceLostError
from workers.engine.engine import Outcome
from workers.process.worker import EXIT_DEVICE_LOST


@dataclass
class DeadlyEngine(FakeEngine):
    """Loses its device at some rows, which ends the process."""

    deadly: Collection[int] = ()

    def embed(self, records: Sequence[Record], form: OutputForm, **options: Any) -> Outcome:
        found = super().embed(records, form, **options)
        if any(record.row in self.deadly for record in records):
            raise DeviceLostError("CUDA error")
        return found

    def times(self, row: int) -> int:
        """How often a row was computed."""
        return sum(row in rows for _, rows in self.calls)


def run_until_done(world: World, engine: DeadlyEngine, batch: Batch) -> int:
    """Run a batch in one process after another until none ends; returns how many ended."""
    for ended in range(20):
        with suppress(EndedError):
            world.runner(engine).run(batch)
            return ended
    raise AssertionError("it ends every process")


def test_a_row_that_ends_its_processes_is_given_up_and_all_others_are_embedded(
    world, batch, exits, caplog
):
    engine = DeadlyEngine(deadly=[2])
    assert run_until_done(world, engine, batch) == 5
    assert exits == [EXIT_DEVICE_LOST] * 5
    assert engine.times(2) == 5
    shard = world.shard(0)
    assert shard.rows.tolist() == [0, 1, 3]
    assert set(shard.precision) == {PRECISION_CODES[FP16]}
    (row,) = read_quarantine(world.store, world.job, 0)
    assert (row.row, row.id, row.length, row.seen) == (2, "id2", LETTERS_PER_RECORD, {})
    assert row.reason is not None
    assert "crashed 2 times while it computed this sequence alone" in row.reason
    (result,) = world.results
    assert (result.status, result.quarantined, result.next) == (Status.POISONED, (row,), None)
    progress = world.progress
    assert (progress.batches_done, progress.leased) == (1, 0)
    assert progress.rows_by_precision == {"fp16": 3}
    assert progress.rows_quarantined == progress.counts["batches_poisoned"] == 1
    (event,) = world.events
    assert (event.event, event.detail) == (EventKind.QUARANTINE, str(row))
    assert (
        f"Batch 0 of {world.job} crashed 3 worker processes: each of its rows is computed alone"
        in caplog.text
    )


def test_a_batch_is_computed_as_a_whole_until_it_has_ended_three_processes(world, batch):
    engine = FakeEngine()
    world.crash(batch, 2)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, ROWS[0])]


def test_from_then_on_it_is_computed_row_by_row_and_may_be_well(world, batch):
    engine = FakeEngine()
    world.crash(batch, 3)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, [row]) for row in ROWS[0]]
    assert world.shard(0).rows.tolist() == ROWS[0]
    assert world.progress.tokens_done == 4 * TOKENS_PER_RECORD
    assert world.progress.device_seconds == 4 * 0.25
    assert world.results == world.events == []


def test_processes_that_went_away_without_a_word_count_as_well(world, batch):
    for _ in range(3):
        world.claim(batch)
        world.lapse(batch)
        world.ledger.leases.expire(world.job)
    engine = FakeEngine()
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, [row]) for row in ROWS[0]]


def test_of_a_batch_some_rows_are_given_up_and_others_go_on(world, batch, exits):
    engine = DeadlyEngine({1: [FP16]}, deadly=[2])
    assert run_until_done(world, engine, batch) == 5
    *again, retry = world.published
    assert again == [batch] * 5  # by each process whose device is lost
    assert (retry.rung, retry.records) == (SELECTIVE, 1)
    assert world.shard(0).rows.tolist() == [0, 3]
    assert [row.row for row in read_quarantine(world.store, world.job, 0)] == [2]
    assert [event.event for event in world.events] == [EventKind.QUARANTINE, EventKind.RETRY]
    world.runner(engine).run(retry)
    assert world.shard(0, SELECTIVE).rows.tolist() == [1]
    progress = world.progress
    assert progress.rows_by_precision == {"fp16": 2, "selective_fp32": 1}
    assert (progress.batches_done, progress.rows_quarantined) == (1, 1)


def test_a_batch_of_which_every_row_ends_its_process_leaves_an_empty_shard(world, exits):
    batch = world.manifest.batch(1)
    assert run_until_done(world, DeadlyEngine(deadly=ROWS[1]), batch) == 7
    assert len(world.shard(1)) == 0
    assert [row.row for row in read_quarantine(world.store, world.job, 1)] == ROWS[1]
    assert world.progress.batches_done == 1


def test_at_a_higher_rung_too_a_row_that_ends_its_process_is_found(world, exits):
    engine = DeadlyEngine({0: [FP16], 2: [FP16]})
    retry = run_first_rung(world, engine)
    engine.deadly = [2]
    assert run_until_done(world, engine, retry) == 5
    assert world.shard(0, SELECTIVE).rows.tolist() == [0]
    assert [row.row for row in read_quarantine(world.store, world.job, 0)] == [2]
    assert world.progress.batches_done == 1


def test_a_batch_with_too_many_such_rows_fails_with_the_reason(world, batch, exits):
    assert run_until_done(world, DeadlyEngine(deadly=ROWS[0]), batch) == 10
    (result,) = world.results
    assert result.status is Status.FAILED
    assert result.error == (
        "it crashed 10 worker processes, 7 of them while one of its sequences was computed alone. "
        "See the workers' logs for the causes."
    )
    assert world.events[-1].event is EventKind.FAILED


def test_a_batch_that_ends_processes_while_none_of_its_rows_is_computed_fails(
    world, batch, exits, monkeypatch
):
    def end(*_: object, **__: object) -> NoReturn:
        raise DeviceLostError("CUDA error")

    monkeypatch.setattr("workers.batches.runner.write_shard", end)
    engine = DeadlyEngine()
    assert run_until_done(world, engine, batch) == 5
    (result,) = world.results
    assert result.error is not None
    assert result.error.startswith("it crashed 5 worker processes, none of them while one of its")


def test_a_worker_that_stops_between_rows_blames_none_of_them(world, batch):
    world.crash(batch, 3)
    for _ in range(3):
        runner = world.runner()
        runner.engine.during = runner.stopping.set
        with pytest.raises(RequeueError, match="this worker is stopping"):
            runner.run(batch)
        assert (
            world.ledger.leases.crash_record(batch).current_row is None
        )  # nor for an end that comes later
    world.runner().run(batch)
    assert world.shard(0).rows.tolist() == ROWS[0]
    assert world.results == []


def test_who_has_lost_such_a_batch_notes_nothing_more_of_it(world, batch):
    world.crash(batch, 3)
    engine = FakeEngine(during=lambda: world.take_over(batch) if len(engine.calls) == 2 else None)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, [0]), (FP16, [1])]
    assert world.shards() == []
    assert world.ledger.leases.crash_record(batch).current_row == 1


def test_nothing_else_is_computed_in_a_process_while_such_a_batch_is(world, batch):
    """Or the end that another brings about would be blamed on it."""
    world.crash(batch, 3)
    other = world.manifest.batch(1)
    threads = []

    def begin_another() -> None:
        if not threads:
            threads.append(threading.Thread(target=runner.run, args=[other]))
            threads[0].start()
            wait_until(lambda: world.progress.leased == 2, 5)

    engine = FakeEngine(during=begin_another)
    runner = world.runner(engine)
    runner.run(batch)
    threads[0].join(5)
    assert engine.calls == [*((FP16, [row]) for row in ROWS[0]), (FP16, ROWS[1])]
