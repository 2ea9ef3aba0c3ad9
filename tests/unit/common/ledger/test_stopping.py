"""Jobs that stop at the first instability or are cancelled, and are then resumed."""

from datetime import UTC, datetime

import pytest

from common.ledger.claims import ClaimOutcome
from common.ledger.progress import JobState
from common.rungs import Rung
from tests.support.jobs import manifest_of, ok, retry_after, unstable
from tests.support.ledgers import (
    BATCH,
    MANIFEST,
    OTHER,
    QUEUE,
    everything,
    outstanding_places,
    progress_of,
    try_to_claim,
)


def test_a_job_stops_at_an_instability_if_that_was_asked_for_last(ledger):
    assert not ledger.jobs.stops_at_instability(BATCH.job)
    for policy in ("fail", "retry", "fail"):
        ledger.jobs.resume(MANIFEST, policy)
        assert ledger.jobs.stops_at_instability(BATCH.job) == (policy == "fail")
    assert progress_of(ledger).state is JobState.OPEN


def test_what_was_asked_for_is_forgotten_with_the_job(ledger):
    ledger.jobs.resume(MANIFEST, "fail")
    ledger.jobs.create(manifest_of([3, 5], created=datetime(2026, 2, 3, tzinfo=UTC)), QUEUE)
    assert not ledger.jobs.stops_at_instability(BATCH.job)


def test_a_job_that_nobody_knows_cannot_be_resumed_and_stops_at_nothing(ledger):
    ledger.redis.flushall()
    ledger.jobs.resume(MANIFEST, "fail")
    assert not ledger.jobs.stops_at_instability(BATCH.job)
    assert everything(ledger) == {}


def test_a_job_that_stopped_gives_out_nothing_more_at_any_rung(ledger):
    try_to_claim(ledger, BATCH, owner="a")
    assert ledger.results.complete(unstable(BATCH, stops_job=True), owner="a")
    assert progress_of(ledger).state is JobState.STOPPED
    assert try_to_claim(ledger, OTHER) is ClaimOutcome.STOPPED
    assert try_to_claim(ledger, BATCH) is ClaimOutcome.STOPPED
    assert try_to_claim(ledger, retry_after(MANIFEST, unstable(BATCH))) is ClaimOutcome.STOPPED
    assert progress_of(ledger).leased == 0


def test_finite_rows_of_what_stopped_a_job_are_counted_and_the_others_are_to_be_retried(ledger):
    result = unstable(BATCH, 1, stops_job=True)
    ledger.results.complete(result)
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 2}
    assert progress.rows_retried == 1
    assert progress.batches_failed == progress.batches_done == 0
    assert ledger.results.all(BATCH.job) == [result]
    assert list(ledger.batches.outstanding(MANIFEST)) == [retry_after(MANIFEST, result), OTHER]


def test_what_was_under_way_in_a_job_that_stopped_is_counted_and_it_stays_stopped(ledger):
    try_to_claim(ledger, OTHER, owner="b")
    ledger.results.complete(unstable(BATCH, stops_job=True))
    assert ledger.leases.renew(OTHER, owner="b")
    assert ledger.results.complete(ok(OTHER), owner="b")
    progress = progress_of(ledger)
    assert progress.batches_done == 1
    assert progress.state is JobState.STOPPED


def test_a_job_stops_even_if_it_was_its_last_batch_and_no_rung_is_left(ledger):
    ledger.results.complete(ok(OTHER))
    ledger.results.complete(unstable(BATCH, precision=Rung.FP32, stops_job=True))
    progress = progress_of(ledger)
    assert (progress.state, progress.batches_done) == (JobState.STOPPED, 2)
    ledger.jobs.resume(MANIFEST, "retry")
    assert progress_of(ledger).finished


def test_a_job_that_was_cancelled_stays_so_when_it_would_stop_and_goes_on_when_resumed(ledger):
    ledger.jobs.cancel(BATCH.job)
    ledger.results.complete(unstable(BATCH, stops_job=True))
    assert progress_of(ledger).state is JobState.CANCELLED
    ledger.jobs.resume(MANIFEST, "retry")
    assert progress_of(ledger).state is JobState.OPEN
    assert try_to_claim(ledger, OTHER) is ClaimOutcome.TAKEN


def test_a_batch_of_a_cancelled_job_cannot_be_renewed_until_the_job_goes_on(ledger):
    try_to_claim(ledger, owner="a")
    ledger.jobs.cancel(BATCH.job)
    assert not ledger.leases.renew(BATCH, owner="a")
    ledger.jobs.resume(MANIFEST, "retry")
    assert ledger.leases.renew(BATCH, owner="a")


def test_a_job_that_is_finished_or_unknown_cannot_be_cancelled(ledger):
    ledger.results.complete(ok(BATCH))
    ledger.results.complete(ok(OTHER))
    assert ledger.jobs.cancel(BATCH.job) is JobState.FINISHED
    assert progress_of(ledger).finished
    assert ledger.jobs.cancel("unknown") is None
    assert ledger.jobs.progress("unknown") is None


def test_a_job_that_finished_stays_so_when_it_is_resumed(ledger):
    ledger.results.complete(ok(BATCH))
    ledger.results.complete(ok(OTHER))
    ledger.jobs.resume(MANIFEST, "fail")
    assert progress_of(ledger).finished


@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_a_job_that_is_resumed_goes_on_where_it_stopped(ledger, policy):
    ledger.results.complete(ok(OTHER))
    result = unstable(BATCH, 1, 2, stops_job=True)
    ledger.results.complete(result)
    before = progress_of(ledger).counts
    ledger.jobs.resume(MANIFEST, policy)
    progress = progress_of(ledger)
    assert (progress.state, progress.counts) == (JobState.OPEN, before | {"published": 0})
    (retry,) = ledger.batches.outstanding(MANIFEST)
    assert retry == retry_after(MANIFEST, result)
    assert try_to_claim(ledger, BATCH) is ClaimOutcome.DONE
    assert try_to_claim(ledger, retry) is ClaimOutcome.TAKEN
    assert ledger.results.complete(ok(retry), owner="a")
    assert progress_of(ledger).finished
    assert progress_of(ledger).rows_by_precision == {"fp16": 6, "selective_fp32": 2}


def test_a_job_stops_again_at_the_next_instability_if_it_is_to(ledger):
    result = unstable(BATCH, stops_job=True)
    ledger.results.complete(result)
    ledger.jobs.resume(MANIFEST, "fail")
    ledger.results.complete(unstable(retry_after(MANIFEST, result), stops_job=True))
    assert progress_of(ledger).state is JobState.STOPPED
    assert outstanding_places(ledger) == [(0, Rung.FP32), (1, Rung.FP16)]


def test_a_duplicate_of_what_stopped_a_job_does_not_stop_it_again(ledger):
    ledger.results.complete(unstable(BATCH, stops_job=True))
    ledger.jobs.resume(MANIFEST, "retry")
    assert not ledger.results.complete(unstable(BATCH, stops_job=True))
    assert progress_of(ledger).state is JobState.OPEN
