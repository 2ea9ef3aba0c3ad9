"""Why a job does not go on: a text for each cause, and none for a job that does."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from common.ledger.events import Event, EventKind
from common.ledger.ledger import Ledger
from common.ledger.progress import OPEN_STATES, JobState
from common.ledger.speed import Speed
from common.ledger.workers import WorkerInfo
from common.local.embedded_redis import redis_server
from common.rungs import Rung
from common.wire.signing import MessageKeys
from producer.scheduling.diagnosis import diagnose
from producer.scheduling.observation import Observation, observe
from tests.support.jobs import manifest_of, progress

WORKER = WorkerInfo(
    name="w", model="m", weights="new", device="GPU", precision=Rung.FP16, queues=("m.fp16",)
)
LOADING = WORKER.model_copy(update={"weights": None})
OLD = WORKER.model_copy(update={"weights": "old"})
OTHER_PRECISION = WORKER.model_copy(update={"precision": Rung.BF16, "queues": ("m.bf16",)})
WITH_KEY = WORKER.model_copy(update={"keys": ("theirs",)})
WITH_BOTH = WORKER.model_copy(update={"keys": ("theirs", "ours")})

WAITS, RUNS = progress(), replace(progress(), leased=1)
BEGUN = replace(WAITS, weights="old")


def seen(job: Any = WAITS, workers: Any = (WORKER,), **more: Any) -> Observation:
    return Observation(job, workers=workers, **more)


@pytest.mark.parametrize(
    ("observation", "text"),
    [
        (
            seen(workers=()),
            "no worker serves m.fp16 yet. Start one: worker start --model m",
        ),
        (
            seen(workers=(), other_workers=(OTHER_PRECISION,)),
            "no worker serves m.fp16 yet (workers of its model run in bf16). Start one: worker "
            "start --model m",
        ),
        (
            seen(replace(progress(queue="m.bf16"), model="a b"), workers=()),
            "no worker serves m.bf16 yet. Start one: worker start --model 'a b' --precision bf16",
        ),
        (seen(workers=(), is_local=True), "no worker serves m.fp16 yet."),
        (
            seen(BEGUN),
            "it began with weights old, but its workers have others and will not continue it. "
            "Start workers with those weights, or submit the input as a new job (--new).",
        ),
        (
            seen(
                replace(WAITS, model_digest="now"),
                workers=(WORKER.model_copy(update={"model_digest": "before"}),),
            ),
            "its workers have loaded other weights than m has now, and will not compute it: "
            "restart them.",
        ),
        (
            seen(replace(WAITS, signed_with=""), workers=(WITH_KEY,)),
            "its messages are refused: the workers of m.fp16 have a VIRNUCPRO_MESSAGE_KEY, and "
            "they are not signed. Set the same key for workers, producers and keepers, then "
            "job.resume()",
        ),
        (
            seen(replace(WAITS, signed_with="ours"), workers=(WITH_KEY,)),
            "its messages are refused: the workers of m.fp16 have a VIRNUCPRO_MESSAGE_KEY, and "
            "they are signed with another one. Set the same key for workers, producers and "
            "keepers, then job.resume()",
        ),
        (
            seen(has_memory=False),
            "Redis has no memory left (its maxmemory): give it more, or wait until workers have "
            "taken messages.",
        ),
        (
            seen(store_error="attempt 1: no space left"),
            "a worker cannot use its store (attempt 1: no space left). Workers need the store that "
            "the job was submitted to, and must be able to write there.",
        ),
        (
            seen(requeued="not computed in attempt 1: MemoryError: no room"),
            "a worker requeued a batch (not computed in attempt 1: MemoryError: no room). It is "
            "tried again.",
        ),
        (
            seen(is_queued=False, is_kept=False),
            "no message of it is queued, and no keeper runs that would publish them. Start one "
            "(producer keeper), or wait for the job: job.wait()",
        ),
    ],
    ids=[
        *("no worker", "other precision", "precision", "local", "other weights", "stale files"),
        *("not signed", "signed with another key", "full Redis", "store", "no memory", "no keeper"),
    ],
)
def test_a_cause_has_its_text_while_a_job_is_open_and_none_afterwards(observation, text):
    assert diagnose(observation) == text
    for state in set(JobState) - set(OPEN_STATES):
        assert diagnose(replace(observation, progress=progress(state))) == ""


@pytest.mark.parametrize(
    "observation",
    [
        Observation(None, trouble="Redis does not answer; waiting for it"),
        seen(),
        seen(workers=(LOADING,)),
        seen(BEGUN, workers=(LOADING,)),
        seen(BEGUN, workers=(WORKER, OLD)),
        seen(is_queued=False),
        seen(is_kept=False),
        seen(replace(WAITS, signed_with="ours"), workers=(WITH_BOTH,)),
        seen(replace(WAITS, signed_with="ours"), workers=(WITH_KEY, WITH_BOTH)),
        seen(replace(WAITS, signed_with="ours")),
        seen(workers=(WITH_KEY,)),  # of an earlier version: not known whether it is signed
    ],
)
def test_what_goes_on_or_may_do_so_has_no_text(observation):
    assert diagnose(observation) == ""


@given(
    st.lists(st.sampled_from([WORKER, LOADING, OLD, OTHER_PRECISION, WITH_KEY])),
    st.booleans(),
    st.booleans(),
)
def test_a_job_of_which_a_batch_is_running_goes_on(workers, has_memory, is_kept):
    running = replace(RUNS, weights="old", signed_with="ours")
    found = seen(running, workers, has_memory=has_memory, is_kept=is_kept, is_queued=False)
    assert diagnose(found) == ""


# --- what is observed ---------------------------------------------------------------------------

MANIFEST = manifest_of([3, 5])


@pytest.fixture
def open_job(ledger) -> Ledger:
    ledger.jobs.create(MANIFEST, "m.fp16")
    return ledger


def reason(ledger: Ledger) -> str:
    found = ledger.jobs.progress(MANIFEST.job)
    assert found is not None
    return diagnose(observe(ledger, found, Speed(), is_local=False))


def test_workers_keeper_and_queue_are_looked_at(open_job):
    assert reason(open_job).startswith("no worker serves m.fp16 yet.")
    other = OTHER_PRECISION.model_copy(update={"model": MANIFEST.model, "name": "other"})
    open_job.workers.announce(other)
    assert "(workers of its model run in bf16)" in reason(open_job)
    open_job.workers.announce(WORKER)
    assert reason(open_job).startswith("no message of it is queued, and no keeper runs")
    assert open_job.locks.hold_keeping("file:///s", "k", standby=True)
    assert reason(open_job) == ""
    open_job.locks.release_keeping("file:///s", "k")
    open_job.redis.lpush("virnucpro:m.fp16", "a message")
    assert reason(open_job) == ""


@pytest.mark.parametrize(
    ("worker", "producer", "text"),
    [
        *[("", "", ""), ("", "a", ""), ("a", "a", ""), ("b,a", "a,b", ""), ("a,b", "b", "")],
        *[("a", "", "not signed"), ("a", "b", "another one"), ("b", "a,b", "another one")],
    ],
)
def test_a_worker_and_a_producer_need_one_key_in_common_if_the_worker_has_any(
    open_job, worker, producer, text
):
    def keys(names: str) -> MessageKeys:
        keys = tuple((name * 16).encode() for name in names.split(",") if name)
        return MessageKeys(keys)

    signer, verifier = keys(producer), keys(worker)
    message = {"job": "x"}
    signature = signer.headers(message).get("signature", "")
    assert (not verifier or verifier.verify(message, signature)) == (not text)
    open_job.workers.announce(WORKER.model_copy(update={"keys": verifier.ids}))
    open_job.jobs.advance(MANIFEST, 0, signed_with=signer.signs_with)
    open_job.redis.lpush("virnucpro:m.fp16", "a message")
    assert (text in reason(open_job)) if text else reason(open_job) == ""


def test_a_store_that_failed_a_worker_is_named_until_something_else_happens(open_job):
    detail = "attempt 1: Store file:///s cannot write"
    requeued = Event(event=EventKind.REQUEUED, job=MANIFEST.job, detail=detail)
    open_job.events.add(requeued.model_copy(update={"time": 1.0}))
    assert detail not in reason(open_job)  # long ago
    open_job.events.add(requeued)
    assert f"a worker cannot use its store ({detail})" in reason(open_job)
    open_job.events.add(Event(event=EventKind.RETRY, job=MANIFEST.job))
    assert detail not in reason(open_job)


@pytest.fixture
def full_ledger(sockets) -> Iterator[Ledger]:
    """A Redis of its own, which a test can fill."""
    with redis_server(sockets / "redis.sock"):
        yield Ledger(Redis(unix_socket_path=str(sockets / "redis.sock"), decode_responses=True))


def test_a_redis_without_room_is_named(full_ledger):
    full_ledger.jobs.create(MANIFEST, "m.fp16")
    full_ledger.redis.config_set("maxmemory", 1)
    assert reason(full_ledger).startswith("Redis has no memory left")
    full_ledger.redis.config_set("maxmemory", 0)
    assert reason(full_ledger).startswith("no worker serves")
