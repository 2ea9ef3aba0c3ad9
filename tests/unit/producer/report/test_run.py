"""How a job was computed: workers over time, rungs, retries, events."""

import math

import numpy as np
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.embeddings.seal import Computed, Label
from common.errors import UserError
from common.ledger.events import Event, EventKind
from common.rungs import Rung
from common.wire.messages import Instability
from producer.report import run
from producer.report.run import Told, ask_ledger, ladder_of, run_of, timeline_of
from tests.support.jobs import SEEN, manifest_of


def label(
    worker: str = "a",
    began: float = 0.0,
    ended: float = 10.0,
    tokens: int = 100,
    rung: Rung = Rung.FP16,
    records: int = 4,
) -> Label:
    computed = Computed(worker=worker, began=began, ended=ended, device_seconds=2)
    return Label(
        job="job",
        batch=0,
        rung=rung,
        precision=rung,
        tokens=tokens,
        records=records,
        weights="w",
        computed=computed if worker else None,
    )


def test_the_throughput_of_a_worker_is_that_of_its_batches():
    labels = [label(began=0, ended=10, tokens=100), label(began=5, ended=10, tokens=100)]
    found = timeline_of(labels, bins=2)
    assert found.edges.tolist() == [0, 5, 10]
    [worker] = found.workers
    np.testing.assert_allclose(worker.rates, [10, 30])
    assert (worker.batches, worker.tokens, worker.device_seconds) == (2, 200, 4)
    assert (found.shards, found.recorded) == (2, 2)


def test_no_token_is_lost_between_bins():
    draw = np.random.default_rng(5)
    labels = [
        label(worker=f"w{k % 5}", began=began, ended=began + seconds, tokens=int(tokens))
        for k, (began, seconds, tokens) in enumerate(
            zip(
                draw.uniform(0, 1000, 200),
                draw.uniform(0, 50, 200),
                draw.integers(1, 9999, 200),
                strict=True,
            )
        )
    ]
    found = timeline_of(labels)
    for worker in found.workers:
        assert (worker.rates * np.diff(found.edges)).sum() == pytest.approx(worker.tokens)
    assert sum(worker.tokens for worker in found.workers) == sum(one.tokens for one in labels)


def test_a_clock_that_was_set_back_changes_no_sum():
    found = timeline_of([label(began=100, ended=50, tokens=7), label(began=0, ended=90)])
    assert (found.workers[0].rates * np.diff(found.edges)).sum() == pytest.approx(107)


def test_shards_of_earlier_versions_are_counted_as_not_recorded():
    found = timeline_of([label(worker=""), label()])
    assert (found.shards, found.recorded) == (2, 1)
    assert timeline_of([label(worker="")]) is None
    assert timeline_of([]) is None


def test_workers_with_few_tokens_are_shown_together():
    labels = [label(worker=f"w{k}", tokens=k + 1) for k in range(run.WORKERS_SHOWN + 3)]
    found = timeline_of(labels)
    assert found.workers[0].name == f"w{run.WORKERS_SHOWN + 2}"
    assert found.workers[-1].name == "3 others"
    assert found.workers[-1].tokens == 1 + 2 + 3
    assert sum(worker.tokens for worker in found.workers) == sum(one.tokens for one in labels)


def test_the_ladder_has_the_rungs_that_were_used():
    labels = [label(), label(records=3), label(rung=Rung.FP32, records=1, tokens=12)]
    assert [(r.rung, r.shards, r.rows, r.tokens) for r in ladder_of(labels)] == [
        ("fp16", 2, 7, 200),
        ("fp32", 1, 1, 12),
    ]


def test_rows_without_an_embedding_are_listed_with_what_was_seen(monkeypatch):
    monkeypatch.setattr(run, "UNSTABLE_SHOWN", 2)
    seen = {Rung.FP16: SEEN, Rung.FP32: SEEN}
    bad = [
        Instability(row=1, id="x", length=3, seen=seen),
        Instability(row=2, id="y" * 500, length=3, reason="it ends its process"),
        Instability(row=3, id="z", length=3),
    ]
    labels = [label(), label(rung=Rung.FP32, records=2)]
    found = run_of(manifest_of([4, 3]), labels, bad, Told(why_not="no"))
    assert found.unstable == 3
    first, second = found.unstable_shown
    assert first.why == f"fp16: {SEEN}; fp32: {SEEN}"
    assert second.why == "it ends its process"
    assert len(second.id) < 200
    assert found.rows_retried == 3  # two embedded at the second rung, one not even there
    assert found.batch_tokens.counts.sum() == 2
    assert found.no_ledger == "no"


def test_the_ledger_tells_of_events(ledger, job):
    job.open()
    event = Event(time=0, event=EventKind.LEASE_LOST, batch=3, worker="a", detail="it expired")
    ledger.events.add(event.model_copy(update={"job": job.manifest.job}))
    told = ask_ledger(lambda: ledger, job.manifest.job)
    assert told.progress.job == job.manifest.job
    [found] = told.incidents
    assert (found.event, found.batch, found.worker) == ("lease lost", "3", "a")
    assert found.time == "1970-01-01 00:00:00 UTC"


def test_an_event_of_a_newer_version_is_shown_without_its_time():
    found = run.incident_of(Event(time=math.nan, event=EventKind.UNREADABLE, detail="{}"))
    assert (found.time, found.event, found.detail) == ("", "unreadable", "{}")


def test_a_ledger_that_does_not_know_the_job_is_said(ledger):
    assert ask_ledger(lambda: ledger, "none").why_not == "Redis no longer knows this job"


@pytest.mark.parametrize(
    "error",
    [UserError("No Redis answers.\nStart one."), RedisConnectionError("No Redis answers")],
    ids=["user", "redis"],
)
def test_a_report_does_without_redis(error):
    def connected():
        raise error

    assert ask_ledger(connected, "job").why_not == "Redis was not reached (No Redis answers)"
