"""What is counted of batches, rows and requests."""

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from common.ledger.events import Event, EventKind
from common.ledger.ledger import Ledger
from common.rungs import Rung
from common.wire.redis_client import append_capped
from tests.support.jobs import failed, manifest_of, ok, poisoned, unstable
from workers.batches.counting import counted, time_requests, timed
from workers.batches.outcome import BatchOutcome, OutcomeKind, outcome_of
from workers.batches.retry_policy import RequeueError
from workers.runtime import metrics
from workers.runtime.metrics import Recorder

BATCH = manifest_of([5]).batch(0)


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    """The metrics of this process, in memory."""
    recorder = Recorder(model="m", device="cpu")
    monkeypatch.setattr(metrics, "_recorder", recorder)
    return recorder


def value(recorder: Recorder, name: str, *labels: str) -> float:
    return recorder.child(name, labels)._value.get()


def count(recorder: Recorder, name: str, *labels: str) -> float:
    """Return the number of observations of a histogram."""
    (family,) = recorder.families[name].collect()
    return sum(
        sample.value
        for sample in family.samples
        if sample.name.endswith("_count") and list(sample.labels.values())[1:] == list(labels)
    )


@pytest.mark.parametrize(
    ("outcome", "kind", "rows", "tokens"),
    [
        (outcome_of(ok(BATCH)), "done", (5, 0, 0), 60),
        (outcome_of(unstable(BATCH, 1, 2)), "unstable", (3, 2, 0), 36),
        (outcome_of(poisoned(BATCH, 4)), "poisoned", (4, 0, 1), 48),
        (outcome_of(failed(BATCH)), "failed", (0, 0, 0), 0),
        (BatchOutcome(OutcomeKind.SKIPPED, "it is done"), "skipped", (0, 0, 0), 0),
        (BatchOutcome(OutcomeKind.DROPPED, "lost"), "dropped", (0, 0, 0), 0),
    ],
)
def test_a_batch_is_counted_by_its_outcome_with_its_rows_and_tokens(
    recorder, outcome, kind, rows, tokens
):
    run = counted(lambda _batch: outcome, [Rung.FP16])
    assert run(BATCH) is outcome
    found = {k: value(recorder, "batches_total", "fp16", k) for k in OutcomeKind}
    assert found == dict.fromkeys(OutcomeKind, 0) | {kind: 1}
    outcomes = ("embedded", "unstable", "poisoned")
    assert tuple(value(recorder, "rows_total", "fp16", name) for name in outcomes) == rows
    assert value(recorder, "tokens_total", "fp16") == tokens


def test_a_batch_that_is_requeued_is_counted_and_requeued(recorder):
    def run(_batch: object) -> BatchOutcome:
        raise RequeueError("this worker is stopping")

    with pytest.raises(RequeueError):
        counted(run, [Rung.FP16])(BATCH)
    assert value(recorder, "batches_total", "fp16", "requeued") == 1


def test_requests_to_the_store_are_timed_and_only_its_own_failures_are_errors(recorder, world):
    store = world.store
    store.failures["get"] = 1
    for key in ("a/b", "a/none", "a/none"):
        with pytest.raises(Exception, match=r"a/none|did not get"):
            timed("read", lambda key=key: store.get(key))()
    assert count(recorder, "store_seconds", "read") == 3
    assert value(recorder, "store_errors_total", "read") == 1
    assert value(recorder, "store_errors_total", "write") == 0


def test_requests_to_redis_are_timed_and_those_that_fail_are_errors(recorder, redis):
    ledger = Ledger(redis)
    time_requests(redis)
    assert ledger.results.complete(ok(BATCH)) is False  # its script is sent first
    sent = count(recorder, "redis_seconds")
    assert sent >= 1
    assert value(recorder, "redis_errors_total") == 0
    gone = Redis(port=1, retry=Retry(NoBackoff(), 0))
    time_requests(gone)
    with pytest.raises(RedisError):
        gone.get("a")
    assert value(recorder, "redis_errors_total") == 1
    assert count(recorder, "redis_seconds") == sent + 1


def test_the_commands_of_a_pipeline_are_one_request(recorder, redis):
    time_requests(redis)
    event = Event(event=EventKind.RETRY)
    for _ in range(3):
        append_capped(redis, "events", event, 2)
    assert redis.llen("events") == 2
    assert count(recorder, "redis_seconds") == 4
    gone = Redis(port=1, retry=Retry(NoBackoff(), 0))
    time_requests(gone)
    with pytest.raises(RedisError):
        append_capped(gone, "events", event, 2)
    assert value(recorder, "redis_errors_total") == 1
    assert count(recorder, "redis_seconds") == 5


def test_nothing_is_counted_in_a_process_that_has_no_metrics(monkeypatch):
    monkeypatch.setattr(metrics, "_recorder", None)
    assert counted(lambda _batch: outcome_of(ok(BATCH)), [Rung.FP16])(BATCH).result
    with metrics.stage("fetch"):
        metrics.observe("stage_seconds", 1.0, "fetch")
