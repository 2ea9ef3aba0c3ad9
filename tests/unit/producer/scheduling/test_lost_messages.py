"""Lost messages: found after some looks, without false alarms."""

import json
import sys
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.ledger.keys import job_key
from common.ledger.progress import JobState
from common.rungs import Rung
from common.wire.celery_app import publish
from common.wire.messages import Batch
from common.wire.queues import KEY_PREFIX
from producer.scheduling.lost_messages import (
    LOOK_SECONDS,
    PATIENCE,
    PATIENCE_IN_FLIGHT,
    LostMessages,
    batch_key_of,
)
from producer.scheduling.one_by_one import OneByOne
from producer.scheduling.opening import job_queue, model_of
from tests.support.jobs import manifest_of, retry_after
from tests.support.staged import Job

FP16, SELECTIVE, FP32 = Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32

UNACKED = f"{KEY_PREFIX}unacked"


@pytest.fixture
def lost(job) -> LostMessages:
    job.open()
    return LostMessages(job.ledger, OneByOne())


def look(lost: LostMessages, job: Job, times: int = 1) -> list[Batch]:
    """Look several times without pauses; return the lost batches."""
    found = []
    for _ in range(times):
        lost._next_look = 0
        found += lost.look([job.manifest])
    return found


def take(job: Job, rung: Rung = FP16) -> bytes:
    """Remove the next message of a queue, as if it were lost with its worker; return it."""
    item = job.ledger.redis.rpop(f"{KEY_PREFIX}{job.progress.queues[rung]}")
    assert item is not None
    return item.encode()


def in_flight(item: bytes) -> str:
    """Return a message in Celery's form of an unacknowledged one."""
    return json.dumps([json.loads(item), "", "queue"])


# --- a batch at its first rung ------------------------------------------------------------------


def test_a_message_that_vanished_is_found_after_some_looks_and_told_once(lost, job):
    take(job)
    assert look(lost, job, PATIENCE - 1) == []
    assert look(lost, job) == [job.manifest.batch(0)]
    publish(job.app, model_of(job.manifest), [job.manifest.batch(0)])
    assert look(lost, job, 2 * PATIENCE) == []


def test_what_vanishes_again_is_found_again_after_twice_as_many_looks(lost, job):
    """Workers that cannot read a message lose it whenever it is published."""
    take(job)
    for patience in (PATIENCE, 2 * PATIENCE, 4 * PATIENCE):
        assert look(lost, job, patience - 1) == []
        assert len(look(lost, job)) == 1


def test_patience_begins_anew_with_a_message_in_the_queue(lost, job):
    item = take(job)
    assert look(lost, job, PATIENCE - 1) == []
    queue = f"{KEY_PREFIX}{job_queue(job.manifest)}"
    job.ledger.redis.rpush(queue, item)
    assert look(lost, job) == []
    take(job)
    assert look(lost, job, PATIENCE - 1) == []
    assert len(look(lost, job)) == 1


def test_looks_are_some_seconds_apart(lost, job):
    take(job)
    assert look(lost, job) == []
    assert [lost.look([job.manifest]) for _ in range(2 * PATIENCE)] == [[]] * 2 * PATIENCE
    assert LOOK_SECONDS * PATIENCE < 30


def test_a_message_that_a_worker_may_still_have_is_given_more_time(lost, job):
    job.ledger.redis.hset(UNACKED, "tag", in_flight(take(job)))
    assert look(lost, job, PATIENCE_IN_FLIGHT - 1) == []
    assert look(lost, job) == [job.manifest.batch(0)]


def test_what_is_queued_is_not_lost(lost, job):
    assert look(lost, job, 2 * PATIENCE_IN_FLIGHT) == []


def test_what_somebody_holds_is_not_lost(lost, job):
    take(job)
    job.claim(job.manifest.batch(0))
    assert look(lost, job, 2 * PATIENCE_IN_FLIGHT) == []


def test_what_is_done_is_not_lost(lost, job):
    take(job)
    assert look(lost, job, PATIENCE - 1) == []
    job.compute(job.manifest.batch(0))
    assert look(lost, job, 2 * PATIENCE) == []


def test_what_was_not_published_yet_is_not_lost(job_of):
    job = job_of(high_water=2)
    job.open()
    lost = LostMessages(job.ledger, OneByOne())
    take(job)
    assert job.progress.published == 2
    assert look(lost, job, 3 * PATIENCE) == [job.manifest.batch(0)] * 2


def test_messages_of_other_jobs_and_of_nobody_do_not_hide_what_is_lost(lost, job):
    take(job)
    other = manifest_of([1] * 5, job="other", created=datetime(2026, 1, 1, tzinfo=UTC))
    publish(job.app, model_of(other), map(other.batch, range(5)))
    job.ledger.redis.lpush(f"{KEY_PREFIX}{job_queue(job.manifest)}", "a message", "[]")
    job.ledger.redis.hset(UNACKED, "tag", "something")
    assert look(lost, job, PATIENCE) == [job.manifest.batch(0)]


def test_a_message_is_seen_however_long_the_queue_is(lost, job):
    """The queue is longer than one round trip reads, from either end."""
    other = manifest_of([1] * 1300, job="other")
    publish(job.app, model_of(other), map(other.batch, range(1300)))
    item = take(job)
    job.ledger.redis.linsert(
        f"{KEY_PREFIX}{job_queue(job.manifest)}",
        "BEFORE",
        job.ledger.redis.lindex(f"{KEY_PREFIX}{job_queue(job.manifest)}", 650),
        item,
    )
    assert look(lost, job, 2 * PATIENCE) == []


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.OPEN])
def test_of_a_job_that_is_not_looked_for_nothing_is_lost(lost, job, state):
    """The keeper passes only open jobs."""
    take(job)
    job.ledger.redis.hset(job_key(job.name), "state", state)
    for _ in range(2 * PATIENCE):
        lost._next_look = 0
        assert lost.look([]) == []


def test_a_job_that_redis_does_not_know_has_lost_nothing(lost, job):
    job.ledger.jobs.forget(job.name)
    assert look(lost, job, 2 * PATIENCE) == []


# --- at a higher rung ---------------------------------------------------------------------------


@pytest.mark.parametrize("climbed", [1, 2])
def test_a_retry_whose_message_vanished_is_found_with_its_rung(lost, job, climbed):
    take(job)
    retry = job.manifest.batch(0)
    for _ in range(climbed):
        # Its worker was killed between the result and the retry's message.
        retry = retry_after(job.manifest, job.compute(retry, [0, 3]))
    assert look(lost, job, PATIENCE) == [retry]


def test_what_is_queued_at_a_higher_rung_is_not_lost(lost, job):
    take(job)
    retry = retry_after(job.manifest, job.compute(job.manifest.batch(0), [0]))
    publish(job.app, model_of(job.manifest), [retry])
    assert look(lost, job, 2 * PATIENCE) == []
    take(job, SELECTIVE)
    job.claim(retry)
    assert look(lost, job, 2 * PATIENCE) == []


def test_a_batch_is_not_hidden_by_its_own_message_at_another_rung(lost, job):
    """A second copy of the first rung's message is no longer needed."""
    retry = retry_after(job.manifest, job.compute(job.manifest.batch(0), [0]))
    assert look(lost, job, PATIENCE) == [retry]


def test_what_vanished_at_several_rungs_is_all_found(lost, job):
    for _ in range(3):
        take(job)
    first = retry_after(job.manifest, job.compute(job.manifest.batch(0), [0]))
    second = retry_after(job.manifest, job.compute(job.manifest.batch(1), [4]))
    third = retry_after(job.manifest, job.compute(second, [4]))
    assert look(lost, job, PATIENCE) == [first, third, job.manifest.batch(2)]


# --- whose message it is ------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
fields = st.fixed_dictionaries({}, optional=dict.fromkeys(("version", *Batch.model_fields), values))
bodies = st.one_of(
    st.binary(),
    st.builds(json.dumps, st.tuples(values, fields | values, values) | values).map(str.encode),
)


def message_with(body: bytes) -> bytes:
    return json.dumps({"body": b64encode(body).decode()}).encode()


def about(**batch: object) -> bytes:
    return message_with(json.dumps([[], batch, {}]).encode())


@given(
    st.binary()
    | values.map(json.dumps).map(str.encode)
    | bodies.map(message_with)
    | bodies.map(message_with).map(in_flight).map(str.encode)
)
@example(b"[" * 100 * sys.getrecursionlimit())
@example(message_with(b"[" * 100 * sys.getrecursionlimit()))
@example(b'{"body": 3}')
@example(about(job=["not", "hashable"], index=0, rung="fp16"))
@example(about(job="j", index={"not": "hashable"}, rung="fp16"))
@example(about(job="j", index=float("inf"), rung="fp16"))
def test_whose_message_it_is_can_always_be_said_and_looked_up(item):
    assert len({batch_key_of(item)}) == 1


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: in_flight(item).encode()])
def test_a_message_of_ours_is_known_in_the_queue_and_in_flight(job, lost, wrap):
    assert batch_key_of(wrap(take(job))) == (job.name, 0, FP16)
