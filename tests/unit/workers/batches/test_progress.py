"""The progress of running batches: told while a batch takes long, and to those who look."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from common.ledger.ledger import Ledger
from common.ledger.speed import Speed
from common.ledger.workers import CurrentBatch
from common.rungs import Rung
from common.wire.redis_client import redis_client
from producer.scheduling.observation import observe
from tests.support.jobs import manifest_of
from tests.support.processes import wait_until
from tests.support.worlds import WORKER, FakeEngine
from workers.batches import lease_renewer, meter
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.meter import Meter
from workers.engine.flight import PackDone


@pytest.fixture
def fast(monkeypatch) -> None:
    monkeypatch.setattr(lease_renewer, "PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(meter, "NEWS_SECONDS", 0.1)


@contextmanager
def renewing(url: str, of: Meter) -> Iterator[LeaseRenewer]:
    renewer = LeaseRenewer(Ledger(redis_client(url)), WORKER, meter=of)
    renewer.start()
    try:
        yield renewer
    finally:
        renewer.stop()


def current(ledger: Ledger) -> tuple[CurrentBatch, ...]:
    return tuple(batch for worker in ledger.workers.all() for batch in worker.current)


@pytest.mark.usefixtures("fast")
def test_the_progress_of_a_long_batch_is_announced_between_rounds(ledger, redis_url):
    told, batch = Meter(), manifest_of([2]).batch(0)
    with renewing(redis_url, told), told.running(batch) as running:
        count = told.counter(running, 24)
        for done in (6, 18):
            count(PackDone(12, 12, 0.1, batch_tokens=24, batch_done=done))
            wait_until(lambda done=done: [b.tokens for b in current(ledger)] == [done], 5)


@pytest.mark.usefixtures("fast")
def test_short_batches_cause_no_announcements(ledger, redis, redis_url, monkeypatch):
    monkeypatch.setattr(meter, "NEWS_SECONDS", 60.0)
    told, batch = Meter(), manifest_of([2]).batch(0)
    with renewing(redis_url, told) as renewer, told.running(batch) as running:
        wait_until(lambda: ledger.workers.all(), 5)
        told.counter(running, 24)(PackDone(12, 12, 0.1, batch_tokens=24, batch_done=6))
        time.sleep(0.5)
        assert current(ledger) == ()
        renewer.update(WORKER)  # what is announced anyhow has it
        assert [b.tokens for b in current(ledger)] == [6]


def test_a_runner_tells_how_far_its_batch_has_come_as_its_job_counts(world, batch):
    told, seen = Meter(), []
    engine = FakeEngine(during=lambda: seen.append(told.entry()["current"]))
    world.runner(engine, meter=told).run(batch)
    ((now,),) = seen
    assert (now.job, now.batch, now.rung) == (batch.job, batch.index, Rung.FP16)
    assert now.tokens == world.manifest.batch_tokens[0] / 2  # half of the packs are done
    assert told.entry()["current"] == ()


def test_an_observer_counts_running_batches_until_they_are_done(world, batch, ledger):
    told, ended, middle = Meter(), threading.Event(), threading.Event()

    def wait() -> None:
        middle.set()
        ended.wait(30)

    def done() -> int:
        seen = observe(ledger, world.progress, Speed(), is_local=False)
        return world.progress.tokens_done + seen.running_tokens

    runner = world.runner(FakeEngine(during=wait), meter=told)
    thread = threading.Thread(target=runner.run, args=(batch,))
    thread.start()
    assert middle.wait(30)
    ledger.workers.announce(WORKER.model_copy(update=told.entry()))
    tokens = world.manifest.batch_tokens[0]
    assert done() == tokens / 2
    ended.set()
    thread.join()
    # Its worker has announced nothing since.
    assert done() == tokens


def test_a_speed_begins_with_the_first_batch_and_not_while_the_model_is_loaded(
    world, batch, ledger
):
    class Seen(Speed):
        readings: ClassVar[list[int]] = []

        def update(self, now: float, tokens: int) -> float | None:
            self.readings.append(tokens)
            return super().update(now, tokens)

    speed = Seen()
    observe(ledger, world.progress, speed, is_local=True)
    assert speed.readings == []
    world.claim(batch)
    observe(ledger, world.progress, speed, is_local=True)
    assert speed.readings == [0]


def test_the_stages_of_loading_are_announced(ledger, redis_url):
    with renewing(redis_url, Meter()) as renewer:
        for stage in ("downloading", "loading"):
            renewer.tell_stage(stage)
            assert [worker.stage for worker in ledger.workers.all()] == [stage]
