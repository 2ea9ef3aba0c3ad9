"""The demand for workers: every batch that is left, once, or no number at all."""

import pytest

from common.ledger.demand import DEMAND_KEY, DEMAND_SECONDS, STORE_SECONDS, STORES_KEY
from common.ledger.keys import job_key, store_digest
from common.ledger.ledger import Ledger
from common.rungs import Rung
from common.wire.queues import KEY_PREFIX
from tests.support.jobs import failed, manifest_of, ok
from tests.support.ledgers import BATCH, MANIFEST, OTHER, QUEUE, climb, take

STORE = "file:///store"
POOL = QUEUE


@pytest.fixture(autouse=True)
def kept(ledger: Ledger) -> None:
    """A keeper has looked for the store's jobs."""
    assert ledger.stores.end_look(STORE, ledger.stores.begin_look(STORE))


def renewed(ledger: Ledger) -> dict[str, int] | None:
    assert ledger.demand.renew(STORE)
    return ledger.demand.read()


def test_a_batch_is_left_until_its_last_rung_has_a_result_and_never_counts_twice(ledger):
    assert renewed(ledger) == {POOL: 2}
    ledger.jobs.advance(MANIFEST, 2)
    take(ledger, BATCH)
    assert renewed(ledger) == {POOL: 2}
    retry = climb(ledger)
    assert renewed(ledger) == {POOL: 2}
    take(ledger, retry)
    assert renewed(ledger) == {POOL: 2}
    ledger.results.complete(ok(retry))
    assert renewed(ledger) == {POOL: 1}
    ledger.results.complete(failed(OTHER))
    assert renewed(ledger) == {}
    ledger.results.reopen(failed(OTHER))
    assert renewed(ledger) == {POOL: 1}


def test_jobs_of_every_priority_are_of_one_pool_and_other_ladders_of_another(ledger):
    for name, queue, sizes in (
        ("urgent", f"high.{QUEUE}", [1, 1, 1]),
        ("patient", f"low.{QUEUE}", [1]),
        ("exact", "random.esm2_t6_8M_UR50D.fp32", [1] * 5),
    ):
        rung = Rung(queue.rpartition(".")[2])
        ledger.jobs.create(manifest_of(sizes, job=name, rung=rung), queue)
    assert renewed(ledger) == {"random.esm2_t6_8M_UR50D.fp32": 5, POOL: 6}


def test_a_job_that_is_not_open_needs_no_worker_and_one_that_is_needs_one(ledger):
    ledger.jobs.create(manifest_of([], job="empty"), "other.fp16")
    assert renewed(ledger) == {"other.fp16": 1, POOL: 2}
    ledger.jobs.cancel(MANIFEST.job)
    ledger.jobs.cancel("empty")
    assert renewed(ledger) == {}


def test_what_was_not_counted_for_a_while_is_not_believed(ledger):
    assert ledger.demand.read() is None
    assert renewed(ledger) == {POOL: 2}
    assert 0 < ledger.redis.ttl(DEMAND_KEY) <= DEMAND_SECONDS
    ledger.redis.persist(DEMAND_KEY)
    assert ledger.demand.read() is None
    ledger.redis.expire(DEMAND_KEY, 10 * DEMAND_SECONDS)  # Redis's clock was set back
    assert ledger.demand.read() is None
    assert renewed(ledger) == {POOL: 2}


def test_after_redis_was_emptied_nothing_is_said_until_the_jobs_are_known_again(ledger):
    renewed(ledger)
    ledger.redis.flushall()
    assert not ledger.demand.renew(STORE)
    assert ledger.demand.read() is None
    look = ledger.stores.begin_look(STORE)
    ledger.jobs.create(MANIFEST, QUEUE)
    assert not ledger.demand.renew(STORE)
    ledger.stores.end_look(STORE, look)
    assert renewed(ledger) == {POOL: 2}


def look(ledger: Ledger, store: str) -> None:
    assert ledger.stores.end_look(store, ledger.stores.begin_look(store))


def test_nothing_is_said_before_the_jobs_of_every_store_that_has_a_keeper_are_known(ledger):
    ledger.demand.note_store(STORE)
    assert renewed(ledger) == {POOL: 2}
    ledger.demand.note_store("file:///other")
    assert not ledger.demand.renew(STORE)
    assert ledger.demand.read() is None
    look(ledger, "file:///other")
    assert renewed(ledger) == {POOL: 2}


def test_an_emptied_redis_does_not_make_a_keeper_forget_that_there_is_another_store(ledger):
    ledger.demand.note_store("file:///other")
    look(ledger, "file:///other")
    renewed(ledger)
    ledger.redis.flushall()
    ledger.demand.note_store(STORE)
    look(ledger, STORE)  # before the keeper of the other store has said anything
    assert not ledger.demand.renew(STORE)
    assert ledger.demand.read() is None
    ledger.jobs.create(MANIFEST, QUEUE)
    look(ledger, "file:///other")
    assert renewed(ledger) == {POOL: 2}


@pytest.mark.parametrize("ago", [-2 * STORE_SECONDS, 2 * STORE_SECONDS])
def test_a_store_that_has_had_no_keeper_for_long_counts_no_more(ledger, ago):
    ledger.demand.note_store("file:///other")
    ledger.redis.zincrby(STORES_KEY, -ago, store_digest("file:///other"))
    assert renewed(ledger) == {POOL: 2}
    assert 0 < ledger.redis.ttl(STORES_KEY) <= STORE_SECONDS


@pytest.mark.parametrize("value", ["?", "", "-3", "nan", "inf", "1e300"])
def test_a_strange_job_counts_as_one_batch_and_the_others_as_they_are(ledger, value):
    for name in ("strange", "text"):
        ledger.jobs.create(manifest_of([1, 1], job=name), "strange.fp16")
    ledger.redis.hset(job_key("strange"), "batches", value)
    ledger.redis.delete(job_key("text"))
    ledger.redis.set(job_key("text"), "text")
    ledger.redis.zadd(f"{KEY_PREFIX}jobs", {"gone": 1})
    assert renewed(ledger) == {POOL: 2, "strange.fp16": 1}


def test_a_queue_whose_name_is_no_text_hides_no_other(ledger):
    ledger.jobs.create(manifest_of([1], job="odd"), "odd.fp16")
    ledger.redis.hset(job_key("odd"), "queue", b"\xff.fp16")
    assert renewed(ledger) == {"\\xff.fp16": 1, POOL: 2}
