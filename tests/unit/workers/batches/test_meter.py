"""The meter: what a process tells of its running batches and of its speed."""

import threading

import pytest

from common.ledger.workers import CurrentBatch
from common.rungs import Rung
from tests.support.jobs import manifest_of
from workers.batches import meter as module
from workers.batches.meter import Meter
from workers.engine.flight import PackDone

BATCH, OTHER = map(manifest_of([2, 3]).batch, range(2))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time of the meter, in its first item."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def pack(tokens: int, done: int, of: int, seconds: float = 1.0) -> PackDone:
    return PackDone(tokens, 100, seconds, of, done)


def test_a_batch_tells_its_tokens_as_its_job_counts_them(clock):
    meter = Meter()
    with meter.running(BATCH) as running:
        count = meter.counter(running, 600)  # windows have 300 tokens in packs
        count(pack(100, 100, of=300))
        clock[0] += 2.5
        assert meter.entry()["current"] == (
            CurrentBatch(job=BATCH.job, batch=0, rung=Rung.FP16, tokens=200, seconds=2.5),
        )
        count(pack(200, 300, of=300))
        assert meter.entry()["current"][0].tokens == 600
    assert meter.entry()["current"] == ()


def test_rows_that_are_computed_alone_add_up(clock):
    meter = Meter()
    with meter.running(BATCH) as running:
        for tokens in (10, 20):
            meter.counter(running, tokens)(pack(tokens, tokens, of=tokens))
        assert meter.entry()["current"][0].tokens == 30


def test_a_batch_that_begins_again_with_smaller_packs_begins_at_0(clock):
    meter = Meter()
    with meter.running(BATCH) as running:
        count = meter.counter(running, 300)
        count(pack(200, 200, of=300))
        count(pack(50, 50, of=300))
        assert meter.entry()["current"][0].tokens == 50


def test_speeds_are_those_of_the_last_minute(clock):
    meter = Meter()
    assert meter.entry()["tokens_per_second"] is None  # while the model is loaded
    meter.start()
    with meter.running(BATCH) as running:
        for second in range(1, 201):
            clock[0] += 1
            if second <= 100:
                meter.counter(running, 50)(pack(50, 50, of=50, seconds=0.5))
            entry = meter.entry()
            if second == 100:
                assert (entry["tokens_per_second"], entry["busy"]) == (50, 0.5)
    assert (entry["tokens_per_second"], entry["busy"]) == (0, 0)


def test_packs_that_overlap_do_not_make_a_device_busier_than_it_can_be(clock):
    meter = Meter()
    meter.start()
    with meter.running(BATCH) as running:
        meter.counter(running, 50)(pack(50, 50, of=50, seconds=3))
        clock[0] += 2
        assert meter.entry()["busy"] == 1


def test_only_a_batch_that_takes_longer_than_most_is_news(clock):
    meter = Meter()
    with meter.running(BATCH) as running, meter.running(OTHER):
        assert not meter.has_news()
        clock[0] += 0.9
        assert not meter.has_news()
        clock[0] += 0.2
        assert meter.has_news()
        meter.entry()
        assert not meter.has_news()  # nothing has changed
        meter.counter(running, 50)(pack(25, 25, of=50))
        assert meter.has_news()
    assert not meter.has_news()


def test_the_memory_of_a_device_is_asked_for_now_and_then(clock):
    asked = []

    def ask() -> tuple[int, int]:
        asked.append(clock[0])
        return 5, 80

    meter = Meter(ask)
    for _ in range(11):
        meter.read_memory()
        clock[0] += 1
    assert asked == [1000, 1005, 1010]
    assert (meter.entry()["memory_used"], meter.entry()["memory_total"]) == (5, 80)
    assert Meter().entry()["memory_used"] is None


def test_threads_lose_no_count():
    meter = Meter()

    def work() -> None:
        with meter.running(BATCH) as running:
            for _ in range(2000):
                meter.counter(running, 1)(pack(1, 1, of=1, seconds=1.0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (meter._tokens, meter._busy_seconds) == (8000, 8000)
