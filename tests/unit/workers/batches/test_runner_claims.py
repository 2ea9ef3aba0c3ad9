"""Claims that are refused, leases that are lost, and a worker that stops."""

import logging

import pytest

from common.errors import UserError
from common.ledger.keys import job_key
from common.ledger.progress import JobState
from common.wire.dead_letters import DeadLetters
from common.wire.messages import Batch
from tests.support.jobs import ok
from tests.support.worlds import FP16, FP32, FakeEngine, World, state_of
from workers.batches.retry_policy import FIRST_PAUSE, OTHER_WORKER_PAUSE, RequeueError

# --- refused, or lost ----------------------------------------------------------------------------


def lease_taken_over(world: World, batch: Batch) -> None:
    world.take_over(batch)


def lease_taken_back(world: World, batch: Batch) -> None:
    world.lapse(batch)
    world.ledger.leases.expire(batch.job)


def done_by_another(world: World, batch: Batch) -> None:
    world.take_over(batch)
    world.ledger.results.complete(ok(batch), owner="other")


@pytest.mark.parametrize("lost", [lease_taken_over, lease_taken_back, done_by_another])
@pytest.mark.parametrize("bad", [{}, {0: [FP16]}, {0: [FP32]}], ids=["finite", "not", "never"])
def test_a_late_owner_writes_nothing_and_reports_nothing(world, batch, lost, bad, caplog):
    precision = FP32 if bad == {0: [FP32]} else FP16
    states: list[object] = []

    def lose_the_batch() -> None:
        lost(world, batch)
        states.append(state_of(world))

    engine = FakeEngine(bad, precision=precision, during=lose_the_batch)
    runner = world.runner(engine)
    with caplog.at_level(logging.INFO):
        runner.run(batch)
    assert state_of(world) == states[0]
    assert world.store.written == world.published == runner.stopping.waits == []
    assert (
        "Batch 0 of job-0123456789ab is dropped: another worker has it, or its job was cancelled"
        in caplog.text
    )
    assert "Numerical instability" not in caplog.text


def test_a_lease_that_expired_and_that_nobody_took_is_still_held(world, batch):
    world.runner(FakeEngine(during=lambda: world.lapse(batch))).run(batch)
    assert world.progress.rows_by_precision == {"fp16": 4}


@pytest.mark.parametrize("error", [UserError("no"), ValueError("no")])
def test_a_late_owner_s_failure_does_not_count(world, batch, error):
    def lose_the_batch_and_fail() -> None:
        world.take_over(batch)
        raise error

    world.runner(FakeEngine(during=lose_the_batch_and_fail)).run(batch)
    assert world.progress.batches_done == 0
    assert world.results == []
    assert world.ledger.leases.renew(batch, owner="other")


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.STOPPED])
def test_a_batch_of_a_job_that_does_not_go_on_is_skipped(world, batch, state, caplog):
    world.ledger.redis.hset(job_key(world.job), "state", state)
    engine = FakeEngine()
    with caplog.at_level(logging.INFO):
        world.runner(engine).run(batch)
    assert engine.calls == []
    assert f"Batch 0 of {world.job} is skipped: {state}." in caplog.text


def test_a_batch_that_is_done_or_held_by_another_is_skipped(world, batch):
    world.runner().run(batch)
    world.claim(world.manifest.batch(1))
    world.store.written.clear()
    for index in (0, 1):
        engine = FakeEngine()
        world.runner(engine).run(world.manifest.batch(index))
        assert engine.calls == []
    assert world.store.written == []


def test_a_batch_of_another_model_or_of_other_weights_is_requeued_after_a_pause(world, batch):
    """Those who can do it should find it."""
    stranger = batch.model_copy(update={"model": "esm2_t33_650M_UR50D"})
    world.ledger.jobs.pin_weights(world.manifest, "others")
    for message, reason in ((stranger, "this worker serves random:"), (batch, "other weights")):
        engine = FakeEngine()
        runner = world.runner(engine)
        with pytest.raises(RequeueError, match=reason):
            runner.run(message)
        assert engine.calls == []
        assert runner.stopping.waits == [OTHER_WORKER_PAUSE]
    assert world.progress.leased == 0


# --- a worker that stops -------------------------------------------------------------------------


def test_a_worker_that_stops_takes_no_batch(world, batch):
    runner = world.runner()
    runner.stopping.set()
    with pytest.raises(RequeueError, match="this worker is stopping"):
        runner.run(batch)
    assert world.progress.leased == 0
    assert world.claim(batch).attempts == 1


def test_a_worker_that_stops_requeues_what_it_computes(world, batch):
    runner = world.runner()
    runner.engine.during = runner.stopping.set
    with pytest.raises(RequeueError, match="this worker is stopping"):
        runner.run(batch)
    assert world.progress.leased == 0
    assert world.shards() == world.results == []
    assert world.claim(batch).attempts == 1  # it is no attempt


def test_a_worker_that_stops_does_not_wait_for_its_store(world, batch):
    world.store.failures["create"] = 1
    runner = world.runner()
    wait = runner.stopping.wait
    runner.stopping.wait = lambda seconds: runner.stopping.set() or wait(seconds)
    with pytest.raises(RequeueError, match="this worker is stopping"):
        runner.run(batch)
    (wait,) = runner.stopping.waits
    assert wait <= FIRST_PAUSE
    assert world.progress.leased == 0
    assert world.shards() == []


@pytest.mark.parametrize("part", ["", ":leases", ":owners", ":done:fp16", ":attempts"])
def test_a_batch_whose_ledger_has_a_key_of_the_wrong_type_does_not_come_back_for_ever(
    world, batch, part
):
    key = f"{job_key(batch.job)}{part}"
    world.ledger.redis.delete(key)
    world.ledger.redis.xadd(key, {"a": "b"})
    engine = FakeEngine()
    runner = world.runner(engine)
    runner.run(batch)
    assert engine.calls == world.published == runner.stopping.waits == []
    (letter,) = DeadLetters(world.ledger.redis).latest()
    assert letter.reason == f"a key or value of the job {batch.job} has the wrong type: delete it"


def test_rows_to_retry_in_a_key_of_the_wrong_type_do_not_come_back_for_ever(world, batch):
    world.runner(FakeEngine({0: [FP16]})).run(batch)
    key = f"{job_key(batch.job)}:results"
    world.ledger.redis.delete(key)
    world.ledger.redis.xadd(key, {"a": "b"})
    world.runner().run(world.published.pop())
    assert world.progress.leased == 0
    (letter,) = DeadLetters(world.ledger.redis).latest()
    assert letter.reason == f"a key or value of the job {batch.job} has the wrong type: delete it"


def test_a_batch_of_a_job_without_a_number_of_batches_is_skipped(world, batch, caplog):
    world.ledger.redis.hdel(job_key(batch.job), "batches")
    engine = FakeEngine()
    with caplog.at_level(logging.INFO):
        world.runner(engine).run(batch)
    assert "is skipped: unknown" in caplog.text
    assert engine.calls == []
