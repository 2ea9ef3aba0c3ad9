"""Failures of the store, the ledger, the device and the batch itself."""

import json
import mmap
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from redis.exceptions import RedisError

from common.errors import UserError
from common.job.layout import input_key, manifest_key
from common.job.manifest import write_manifest
from common.job.quarantine import read_quarantine
from common.ledger.claims import CrashRecord
from common.ledger.keys import job_key
from common.ledger.leases import LEASE_SECONDS
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.rungs import Rung
from common.wire.dead_letters import DeadLetters
from common.wire.messages import BatchResult, Status
from tests.support.jobs import manifest_of, unstable
from tests.support.shards import store_inputs
from tests.support.worlds import (
    FP16,
    FP32,
    RECORDS,
    ROWS,
    SELECTIVE,
    WORKER,
    EndedError,
    FakeEngine,
    failing,
    failure,
    refuse,
    refuse_times,
    run_first_rung,
)
from workers.batches import lease
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.retry_policy import (
    FIRST_PAUSE,
    LEDGER_RETRIES,
    STORE_PAUSE,
    STORE_RETRIES,
    RequeueError,
)
from workers.engine.device import DeviceLostError
from workers.process.worker import EXIT_DEVICE_LOST

# --- a store that fails --------------------------------------------------------------------------


TRIES = 1 + STORE_RETRIES
ACTIONS = ["get", "create", "put"]  # manifest and input, the shard, the quarantine


def engine_that_writes_everything() -> FakeEngine:
    return FakeEngine({0: [FP32]}, precision=FP32)


def assert_within(waits: Sequence[float], ceilings: Sequence[float]) -> None:
    """Pauses are drawn from all between nothing and a ceiling."""
    assert len(waits) == len(ceilings)
    assert all(0 <= wait <= most for wait, most in zip(waits, ceilings, strict=True))


@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_fails_for_a_while_is_asked_again(world, batch, action, caplog):
    world.store.failures[action] = TRIES - 1
    runner = world.runner(engine_that_writes_everything())
    runner.run(batch)
    assert_within(runner.stopping.waits, [STORE_PAUSE, 2 * STORE_PAUSE])
    assert re.search(rf"did not {action}\. Trying again in [012]\.\d s\.", caplog.text)
    assert world.progress.batches_done == 1
    assert world.progress.batches_failed == 0
    assert world.shard(0).rows.tolist() == [1, 2, 3]
    assert len(read_quarantine(world.store, world.job, 0)) == 1


@pytest.mark.parametrize("action", ACTIONS)
def test_a_batch_whose_store_keeps_failing_is_requeued(world, batch, action):
    world.store.failures[action] = TRIES
    runner = world.runner(engine_that_writes_everything())
    with pytest.raises(RequeueError, match=f"attempt 1: Store .+ did not {action}"):
        runner.run(batch)
    *_, last = runner.stopping.waits
    assert last <= FIRST_PAUSE
    assert world.progress.leased == 0
    assert world.progress.batches_done == 0
    assert world.outstanding()[0] == batch
    runner.run(batch)
    assert world.progress.batches_done == 1
    assert world.progress.batches_failed == 0


def test_a_batch_whose_store_failed_at_every_attempt_is_reported(world, batch):
    world.store.failures["create"] = 1000
    world.use_up_attempts(batch)
    world.runner().run(batch)
    (result,) = world.results
    assert result.status is Status.FAILED
    assert result.error == f"Store {world.store.url} did not create."
    assert world.progress.leased == 0


@pytest.mark.parametrize("key_of", [manifest_key, lambda job: input_key(job, 0)])
def test_an_object_that_is_gone_is_asked_for_again_and_named(world, batch, key_of):
    world.store.delete(key_of(world.job))
    with pytest.raises(RequeueError, match=f"has no {key_of(world.job)}"):
        world.runner().run(batch)


# --- batches that cannot be computed -------------------------------------------------------------


def test_an_error_that_the_user_can_correct_fails_the_batch_with_its_message(world, batch, caplog):
    error = failure(world, batch, failing(UserError("Layer 99: this model has layers 0 to 6.")))
    assert error == "Layer 99: this model has layers 0 to 6."
    assert "Traceback" not in caplog.text
    assert world.shards() == []


def test_an_error_that_nobody_thought_of_fails_the_batch_and_is_logged_in_full(
    world, batch, caplog
):
    assert failure(world, batch, failing(ZeroDivisionError("what?"))) == "ZeroDivisionError: what?"
    assert f"Batch 0 of {world.job} failed." in caplog.text
    assert "Traceback" in caplog.text


def test_a_failure_does_not_stop_a_job_that_is_to_stop_at_instability(world, batch):
    world.ledger.jobs.resume(world.manifest, "fail")
    failure(world, batch, failing(ValueError("no")))
    assert world.progress.state is JobState.OPEN


def test_an_input_of_another_alphabet_is_refused_with_the_reason(world_of):
    world = world_of([4], alphabet="dna")
    error = failure(world, world.manifest.batch(0))
    assert error.startswith(
        "The input was read as dna, but random:esm2_t6_8M_UR50D is ESM-2 and takes "
        "protein. Submit from a machine that sees the model's folder"
    )
    assert world.shards() == []


def test_an_input_object_with_fewer_records_than_the_message_says_is_refused(world, batch):
    message = batch.model_copy(update={"records": 5})
    error = failure(world, message)
    assert error == "ValueError: batch 0 has 4 of 5 records"


def test_a_retry_whose_rows_are_not_in_the_input_object_is_refused(world, batch):
    engine = FakeEngine({0: [FP16], 2: [FP16]})
    retry = run_first_rung(world, engine)
    other = [record._replace(row=record.row + 9) for record in RECORDS[:4]]
    of_other_rows = store_inputs(world.store, manifest_of([4]), other)
    write_manifest(world.store, of_other_rows)
    world.runner(engine).run(retry)
    assert engine.calls == []
    assert world.results[-1].error == "ValueError: batch 0 has 0 of 2 records"
    assert world.results[-1].previous_rung is FP16


# --- a device that is lost -----------------------------------------------------------------------


def test_a_process_whose_device_is_lost_releases_its_batch_and_ends(world, batch, exits, caplog):
    runner = world.runner(failing(DeviceLostError("CUDA error: an illegal memory access")))
    with pytest.raises(EndedError):
        runner.run(batch)
    assert exits == [EXIT_DEVICE_LOST]
    assert "The device is lost (CUDA error: an illegal memory access)" in caplog.text
    assert world.progress.leased == 0
    assert world.outstanding()[0] == batch
    attempt = world.claim(batch)
    assert (attempt.attempts, attempt.crashes) == (2, 1)


# --- a ledger that does not answer ---------------------------------------------------------------


def test_a_batch_that_could_not_be_claimed_is_requeued_at_once(world, batch, monkeypatch):
    monkeypatch.setattr(world.ledger.leases, "claim", refuse)
    runner = world.runner()
    with pytest.raises(RequeueError, match="the ledger did not answer: gone"):
        runner.run(batch)
    assert runner.stopping.waits == []
    assert world.store.written == []


def method_of(ledger: Ledger, name: str) -> tuple[object, str]:
    """A part of the ledger and the name of one of its methods."""
    part, _, method = name.partition(".")
    return getattr(ledger, part), method


CALLS = ["results.get", "leases.renew", "jobs.stops_at_instability", "results.complete"]


@pytest.mark.parametrize("call", CALLS)
def test_a_lease_is_released_once_the_ledger_answers_again(world, monkeypatch, call):
    """Before, it would be dropped as held by another; after, whoever takes it can claim it."""
    bad = {0: [FP16, SELECTIVE]}
    retry = run_first_rung(world, FakeEngine(bad))
    runner = world.runner(FakeEngine(bad))
    with monkeypatch.context() as patch:
        patch.setattr(*method_of(world.ledger, call), refuse)
        patch.setattr(world.ledger.leases, "release", refuse_times(3, world.ledger.leases.release))
        with pytest.raises(RequeueError, match="the ledger did not answer: gone"):
            runner.run(retry)
    retries, looks = runner.stopping.waits[:-3], runner.stopping.waits[-3:]
    assert_within(retries, [1, 2, 4, 8, 8] if call == "results.complete" else [])
    assert looks == [1, 1, 1]
    assert world.published == []
    assert world.progress.batches_at(SELECTIVE) == 0
    world.runner(FakeEngine(bad)).run(retry)
    assert world.progress.batches_at(SELECTIVE) == 1
    assert [(b.rung, b.records) for b in world.published] == [(FP32, 1)]


def test_a_batch_is_requeued_when_its_lease_has_expired_if_the_ledger_stays_away(
    world, batch, monkeypatch
):
    runner = world.runner()
    with monkeypatch.context() as patch:
        for call in ("leases.renew", "leases.release"):
            patch.setattr(*method_of(world.ledger, call), refuse)
        with pytest.raises(RequeueError, match="the ledger did not answer: gone"):
            runner.run(batch)
    assert runner.stopping.waits == [1] * LEASE_SECONDS
    world.lapse(batch)
    world.runner().run(batch)
    assert world.progress.batches_done == 1


def test_a_claim_that_cannot_have_expired_is_not_renewed(world, batch, monkeypatch):
    monkeypatch.setattr(world.ledger.leases, "renew", refuse)
    world.runner(renewer=LeaseRenewer(world.ledger, WORKER)).run(batch)
    assert world.progress.batches_done == 1


def test_a_result_that_was_counted_but_not_answered_is_not_computed_again(
    world, batch, monkeypatch
):
    complete, engine = world.ledger.results.complete, FakeEngine({0: [FP16]})

    def complete_and_go(result: BatchResult, *, owner: str) -> bool:
        complete(result, owner=owner)
        raise RedisError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.ledger.results, "complete", complete_and_go)
        with pytest.raises(RequeueError):
            world.runner(engine).run(batch)
    world.runner(engine).run(batch)
    assert engine.calls == [(FP16, ROWS[0])]
    # Whoever looks after lost work finds the retry.
    assert [(b.index, b.rung) for b in world.outstanding()] == [(0, SELECTIVE), (1, FP16)]


@pytest.mark.parametrize("bad", [{0: [FP16]}, {}], ids=["unstable", "ok"])
def test_a_result_that_was_counted_is_no_lost_lease_if_only_a_later_report_is_answered(
    world, batch, monkeypatch, caplog, bad
):
    """The lease may have expired by then, and cannot be renewed: it ended with the result."""
    caplog.set_level("INFO")
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0)
    complete = world.ledger.results.complete

    def complete_and_go(result: BatchResult, *, owner: str) -> bool:
        monkeypatch.setattr(world.ledger.results, "complete", complete)
        assert complete(result, owner=owner)
        return refuse()

    monkeypatch.setattr(world.ledger.results, "complete", complete_and_go)
    world.runner(FakeEngine(bad)).run(batch)
    assert world.progress.batches_at(FP16) == 1
    assert [(b.index, b.rung) for b in world.published] == [(0, SELECTIVE)] * bool(bad)
    assert "is dropped" not in caplog.text


def test_a_result_is_reported_again_while_redis_is_away_for_a_while(world, batch, monkeypatch):
    complete, failures = world.ledger.results.complete, iter(range(LEDGER_RETRIES))

    def complete_in_the_end(result: BatchResult, *, owner: str) -> bool:
        if next(failures, None) is not None:
            refuse()
        return complete(result, owner=owner)

    monkeypatch.setattr(world.ledger.results, "complete", complete_in_the_end)
    runner = world.runner()
    runner.run(batch)
    assert len(runner.stopping.waits) == LEDGER_RETRIES
    assert len(runner.engine.calls) == 1
    assert world.progress.batches_done == 1


def test_a_result_is_reported_again_even_by_a_worker_that_stops(world, batch, monkeypatch):
    complete, failures = world.ledger.results.complete, iter(range(1))
    runner = world.runner()

    def complete_the_second_time(result: BatchResult, *, owner: str) -> bool:
        if next(failures, None) is not None:
            runner.stopping.set()
            refuse()
        return complete(result, owner=owner)

    monkeypatch.setattr(world.ledger.results, "complete", complete_the_second_time)
    runner.run(batch)
    assert world.progress.batches_done == 1


# --- a machine without memory ---------------------------------------------------------------------

ALLOCATIONS = [
    lambda: bytearray(2**62),
    lambda: np.empty(2**60, np.uint8),
    lambda: torch.empty(2**60, dtype=torch.uint8),
    lambda: mmap.mmap(-1, 2**60),
]


@pytest.mark.parametrize("allocate", ALLOCATIONS)
def test_a_batch_for_which_its_machine_has_no_memory_is_requeued(world, batch, allocate):
    with pytest.raises(RequeueError, match="attempt 1: "):
        world.runner(FakeEngine(during=allocate)).run(batch)
    assert world.progress.leased == world.progress.batches_failed == 0
    assert world.outstanding()[0] == batch
    world.runner().run(batch)  # elsewhere
    assert world.progress.batches_done == 1


def test_a_batch_for_which_there_was_no_memory_at_every_attempt_is_reported(world, batch):
    world.use_up_attempts(batch)
    assert "can't allocate memory" in failure(world, batch, FakeEngine(during=ALLOCATIONS[2]))


# --- a ledger of a newer version ------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"status": "paused"}, {"version": 2}, {"rung": "fp8"}])
def test_rows_to_retry_that_only_a_newer_version_can_read_are_left_to_it(world, batch, change):
    world.runner(FakeEngine(bad={1: [Rung.FP16]})).run(batch)
    retried = world.published.pop()
    key = f"{job_key(world.job)}:results"
    (field,) = world.ledger.redis.hkeys(key)
    text = world.ledger.redis.hget(key, field)
    world.ledger.redis.hset(key, field, json.dumps(json.loads(text) | change))
    with pytest.raises(RequeueError, match="another version"):
        world.runner().run(retried)
    assert world.progress.leased == world.progress.batches_failed == 0
    world.ledger.redis.hset(key, field, text)
    world.runner().run(retried)
    assert world.progress.batches_done == 1


def test_rows_to_retry_that_are_no_text_are_set_aside(world, batch):
    world.runner(FakeEngine(bad={1: [Rung.FP16]})).run(batch)
    key = f"{job_key(world.job)}:results"
    (field,) = world.ledger.redis.hkeys(key)
    world.ledger.redis.hset(key, field, b"\xff")
    world.runner().run(world.published.pop())
    assert world.progress.leased == 0
    (letter,) = DeadLetters(world.ledger.redis).latest()
    assert "rows to retry in the ledger are not readable ('utf-8' codec" in letter.reason


def test_what_a_newer_version_adds_to_messages_and_entries_is_ignored(world, batch):
    """Fields are only added: each document is read without those that this version lacks."""
    result = unstable(batch)
    for document in (batch, result, WORKER, world.manifest, CrashRecord(crashes=2)):
        content = json.loads(document.model_dump_json()) | {"of_a_newer_version": [1]}
        assert type(document).model_validate_json(json.dumps(content)) == document
    world.ledger.redis.hset(job_key(world.job), mapping={"of_a_newer_version": "[/x]"})
    world.runner().run(batch)
    assert world.progress.batches_done == 1
