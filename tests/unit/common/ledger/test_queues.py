"""Queues, workers, keepers, events and dead letters in the ledger."""

import pytest

from common.ledger.events import Event, EventKind
from common.ledger.ledger import Ledger
from common.ledger.locks import KEEPING_SECONDS
from common.ledger.workers import WORKER_TTL_SECONDS, WorkerInfo
from common.rungs import Rung
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.queues import KEY_PREFIX, MESSAGES_PER_READ, Queues
from common.wire.redis_client import eviction_policy
from tests.support.ledgers import (
    BATCH,
    WEIGHTS,
)

WORKER = WorkerInfo(
    name="host-1:gpu0",
    model="esm2_t6_8M_UR50D",
    weights=None,
    device="NVIDIA H200",
    precision=Rung.FP16,
    queues=("esm2_t6_8M_UR50D.fp16",),
)


def test_workers_are_known_while_they_say_so(ledger):
    second = WORKER.model_copy(update={"name": "host-2:cpu", "weights": WEIGHTS})
    ledger.workers.announce(second)
    ledger.workers.announce(WORKER)
    assert ledger.workers.all() == [WORKER, second]
    ledger.workers.leave(WORKER)
    assert ledger.workers.all() == [second]


def test_a_worker_that_falls_silent_is_forgotten(ledger):
    ledger.workers.announce(WORKER)
    (key,) = ledger.redis.keys("*worker:*")
    assert 0 < ledger.redis.ttl(key) <= WORKER_TTL_SECONDS
    ledger.redis.expireat(key, 1)  # as if it had been silent that long
    assert ledger.workers.all() == []


def test_an_empty_queue_has_no_messages(ledger):
    assert Queues(ledger.redis).length("none") == 0


# --- messages -----------------------------------------------------------------------------------


def send(ledger: Ledger, queue: str, count: int) -> list[bytes]:
    """Put messages into a queue as Celery does: new ones to the left."""
    sent = [b"message \xff %d" % number for number in range(count)]
    for message in sent:
        ledger.redis.lpush(f"{KEY_PREFIX}{queue}", message)
    return sent


@pytest.mark.parametrize("count", [0, 1, MESSAGES_PER_READ, 2 * MESSAGES_PER_READ + 1])
def test_the_messages_of_a_queue_are_read_oldest_first_and_stay(ledger, count):
    sent = send(ledger, "q", count)
    assert list(Queues(ledger.redis).messages("q")) == sent
    assert Queues(ledger.redis).length("q") == count


def test_messages_that_workers_have_are_in_flight(ledger):
    assert Queues(ledger.redis).in_flight() == []
    ledger.redis.hset(f"{KEY_PREFIX}unacked", "tag", b'["\xff"]')
    assert Queues(ledger.redis).in_flight() == [b'["\xff"]']


@pytest.mark.parametrize(("count", "order"), [(2, "34012"), (0, "01234"), (9, "01234")])
def test_messages_that_were_sent_last_can_go_to_the_front_in_their_order(ledger, count, order):
    sent = send(ledger, "q", 5)
    Queues(ledger.redis).move_to_front("q", count)
    assert list(Queues(ledger.redis).messages("q")) == [sent[int(number)] for number in order]


# --- keepers ------------------------------------------------------------------------------------


def test_one_keeper_at_a_time_keeps_a_store(ledger):
    assert ledger.locks.hold_keeping("s3://a", "first")
    assert ledger.locks.hold_keeping("s3://a", "first")
    assert not ledger.locks.hold_keeping("s3://a", "second")
    assert ledger.locks.hold_keeping("s3://b", "second")
    ledger.locks.release_keeping("s3://a", "second")
    assert not ledger.locks.hold_keeping("s3://a", "second")
    ledger.locks.release_keeping("s3://a", "first")
    assert ledger.locks.hold_keeping("s3://a", "second")


def test_a_keeper_that_falls_silent_makes_room_for_the_next(ledger):
    assert ledger.locks.hold_keeping("s3://a", "first")
    (key,) = ledger.redis.keys("*keeper:*")
    assert 0 < ledger.redis.ttl(key) <= KEEPING_SECONDS
    ledger.redis.expireat(key, 1)  # as if it had been silent that long
    assert ledger.locks.hold_keeping("s3://a", "second")


def test_a_keeper_that_steps_back_does_so_for_one_that_does_not_and_for_no_other(ledger):
    assert ledger.locks.hold_keeping("s3://a", "watch", standby=True)
    assert ledger.locks.hold_keeping("s3://a", "watch", standby=True)
    assert not ledger.locks.hold_keeping("s3://a", "other watch", standby=True)
    assert ledger.locks.hold_keeping("s3://a", "keeper")
    assert not ledger.locks.hold_keeping("s3://a", "watch", standby=True)
    ledger.locks.release_keeping("s3://a", "watch")
    assert not ledger.locks.hold_keeping("s3://a", "other keeper")


def test_a_keeper_that_steps_back_can_stop(ledger):
    assert ledger.locks.hold_keeping("s3://a", "watch", standby=True)
    ledger.locks.release_keeping("s3://a", "watch")
    assert ledger.locks.hold_keeping("s3://a", "other watch", standby=True)


def test_a_store_is_new_to_a_redis_until_it_was_looked_at_and_when_that_is_emptied(ledger):
    assert ledger.stores.is_new("s3://a")
    assert ledger.stores.end_look("s3://a", ledger.stores.begin_look("s3://a"))
    assert not ledger.stores.is_new("s3://a")
    assert ledger.stores.is_new("s3://b")
    ledger.redis.flushall()
    assert ledger.stores.is_new("s3://a")


def test_a_look_at_a_store_during_which_redis_was_emptied_does_not_count(ledger):
    look = ledger.stores.begin_look("s3://a")
    ledger.redis.flushall()
    assert not ledger.stores.end_look("s3://a", look)
    assert ledger.stores.is_new("s3://a")


# --- events and dead letters --------------------------------------------------------------------


def test_a_job_has_its_latest_events_newest_first(ledger, monkeypatch):
    monkeypatch.setattr("common.ledger.events.EVENTS_KEPT", 3)
    events = [
        Event(time=batch, event=EventKind.RETRY, job=BATCH.job, batch=batch, rung=Rung.FP16)
        for batch in range(5)
    ]
    for event in events:
        ledger.events.add(event)
    ledger.events.add(Event(event=EventKind.RETRY, job="other"))
    assert ledger.events.latest(BATCH.job) == events[:1:-1]
    assert ledger.events.latest(BATCH.job, 1) == events[-1:]
    assert ledger.events.latest("unknown") == []


def test_events_are_forgotten_with_their_job(ledger):
    ledger.events.add(Event(event=EventKind.FAILED, job=BATCH.job))
    ledger.jobs.forget(BATCH.job)
    assert ledger.events.latest(BATCH.job) == []


def test_the_latest_dead_letters_are_kept_until_they_are_cleared(ledger, monkeypatch):
    monkeypatch.setattr("common.wire.dead_letters.LETTERS_KEPT", 3)
    letters = [
        DeadLetter(time=number, queue="q", worker="w", reason="not JSON", message="é")
        for number in range(5)
    ]
    for letter in letters:
        DeadLetters(ledger.redis).add(letter)
    assert DeadLetters(ledger.redis).count() == 3
    assert DeadLetters(ledger.redis).latest() == letters[:1:-1]
    assert DeadLetters(ledger.redis).latest(1) == letters[-1:]
    DeadLetters(ledger.redis).clear()
    assert (DeadLetters(ledger.redis).count(), DeadLetters(ledger.redis).latest()) == (0, [])


@pytest.fixture
def small_redis(redis):
    """A Redis with a memory limit."""
    redis.config_set("maxmemory", "1gb")
    yield redis
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", 0)


@pytest.mark.parametrize(("policy", "seen"), [("noeviction", None), ("allkeys-lru", "allkeys-lru")])
def test_a_redis_that_throws_keys_away_is_known(ledger, small_redis, policy, seen):
    small_redis.config_set("maxmemory-policy", policy)
    assert eviction_policy(ledger.redis) == seen
