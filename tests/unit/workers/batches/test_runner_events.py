"""Events of a batch: recorded with its job, and in the log as JSON."""

import pytest

from common.errors import UserError
from common.ledger.events import Event, EventKind
from common.ledger.speed import Speed
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.observation import observe
from tests.support.worlds import FP16, FP32, SELECTIVE, FakeEngine, World, failing, refuse
from workers.batches.retry_policy import RequeueError


def events_in(text: str) -> list[Event]:
    """The events in a log, each a line of JSON."""
    return [Event.model_validate_json(line) for line in text.splitlines() if line.startswith("{")]


def recorded(world: World, caplog: pytest.LogCaptureFixture) -> Event:
    """The one event, which the log has too."""
    (event,) = world.events
    assert events_in("\n".join(caplog.messages)) == [event]
    assert (event.job, event.worker) == (world.job, "a")
    return event


def test_a_batch_that_went_well_is_no_event(world, batch):
    world.runner().run(batch)
    assert world.events == []


def test_rows_that_go_on_to_the_next_rung_are_an_event(world, batch, caplog):
    world.runner(FakeEngine({0: [FP16], 2: [FP16]})).run(batch)
    event = recorded(world, caplog)
    assert (event.event, event.batch, event.rung) == (EventKind.RETRY, 0, FP16)
    assert event.detail.startswith(
        "retried in selective_fp32: row 0 'id0' (10 letters): fp16: 1 NaN"
    )
    assert event.detail.endswith(" and 1 more")


def test_rows_that_are_given_up_are_an_event(world, batch, caplog):
    world.runner(FakeEngine({3: [FP32]}, precision=FP32)).run(batch)
    event = recorded(world, caplog)
    assert (event.event, event.batch, event.rung) == (EventKind.QUARANTINE, 0, FP16)
    assert event.detail.startswith("row 3 'id3' (10 letters): fp32: 4 NaN")


def test_a_batch_that_fails_is_an_event(world, batch, caplog):
    world.runner(failing(UserError("Layer 99 is not there."))).run(batch)
    event = recorded(world, caplog)
    assert (event.event, event.batch, event.rung) == (EventKind.FAILED, 0, FP16)
    assert event.detail == "Layer 99 is not there."


def test_a_batch_that_is_requeued_is_an_event(world, batch, caplog):
    world.store.failures["create"] = 100
    with pytest.raises(RequeueError):
        world.runner().run(batch)
    event = recorded(world, caplog)
    assert (event.event, event.batch, event.rung) == (EventKind.REQUEUED, 0, FP16)
    assert event.detail == f"attempt 1: Store {world.store.url} did not create."


@pytest.mark.parametrize("cause", ["store", "memory"])
def test_an_observer_of_the_job_tells_a_failed_store_from_a_worker_without_memory(
    world, batch, cause
):
    if cause == "store":
        world.store.failures["create"] = 100
    with pytest.raises(RequeueError):
        world.runner(FakeEngine() if cause == "store" else failing(MemoryError())).run(batch)
    found = observe(world.ledger, world.progress, Speed(), is_local=False)
    text = diagnose(found)
    assert ("a worker cannot use its store (attempt 1: " in text) == (cause == "store")
    in_memory = "a worker requeued a batch (not computed in attempt 1: MemoryError: )"
    assert (in_memory in text) == (cause == "memory")


def test_a_lease_that_another_lost_is_an_event_of_the_next_owner(world, batch, caplog):
    world.claim(batch, owner="late/1")
    world.lapse(batch)
    world.runner().run(batch)
    event = recorded(world, caplog)
    assert (event.event, event.batch, event.rung) == (EventKind.LEASE_LOST, 0, FP16)
    assert event.detail == "the lease of late/1 expired"


def test_an_event_that_the_ledger_cannot_keep_is_in_the_log(world, batch, monkeypatch, caplog):
    monkeypatch.setattr(world.ledger.events, "add", refuse)
    world.runner(FakeEngine({0: [FP16]})).run(batch)
    (event,) = events_in("\n".join(caplog.messages))
    assert event.event is EventKind.RETRY
    assert [retry.rung for retry in world.published] == [SELECTIVE]
