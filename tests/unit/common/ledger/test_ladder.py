"""Rows that go on to higher rungs, in the ledger."""

import pytest

from common.ledger.claims import ClaimOutcome
from common.ledger.progress import JobState
from common.rungs import Rung
from tests.support.jobs import TOKENS_PER_RECORD, failed, ok, retry_after, unstable
from tests.support.ledgers import (
    BATCH,
    MANIFEST,
    OTHER,
    climb,
    everything,
    outstanding_places,
    progress_of,
    take,
    try_to_claim,
)


def test_an_unstable_result_with_a_next_rung_leaves_its_batch_to_do_at_that_rung_alone(ledger):
    ledger.results.complete(ok(OTHER))
    result = unstable(BATCH, 1, 2)
    assert ledger.results.complete(result)
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert progress.batches_done == 1
    (retry,) = ledger.batches.outstanding(MANIFEST)
    assert retry == retry_after(MANIFEST, result)
    assert (retry.rung, retry.previous_rung, retry.records) == (Rung.SELECTIVE_FP32, Rung.FP16, 2)
    assert ledger.batches.retries(MANIFEST) == {(0, Rung.SELECTIVE_FP32): retry}


def test_retries_go_before_batches_that_nobody_has_begun(ledger):
    retry = climb(ledger, OTHER)
    assert list(ledger.batches.outstanding(MANIFEST)) == [retry, BATCH]


def test_a_retry_s_result_settles_its_batch_and_takes_the_place_of_the_one_before(ledger):
    ledger.results.complete(ok(OTHER))
    retry = climb(ledger)
    try_to_claim(ledger, retry)
    assert list(ledger.batches.outstanding(MANIFEST)) == []
    assert ledger.batches.retries(MANIFEST) == {(0, Rung.SELECTIVE_FP32): retry}
    assert ledger.results.complete(ok(retry))
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.rows_by_precision == {"fp16": 7, "selective_fp32": 1}
    assert progress.rows_retried == 1
    assert progress.counts["rows_retried_again"] == progress.rows_quarantined == 0
    assert progress.batches_at(Rung.SELECTIVE_FP32) == 1
    assert progress.embedded_at(Rung.SELECTIVE_FP32) == 1
    assert progress.tokens_done == 8 * TOKENS_PER_RECORD
    assert ledger.results.all(BATCH.job) == []
    assert list(ledger.batches.outstanding(MANIFEST)) == []
    assert ledger.batches.retries(MANIFEST) == {}


def test_rows_that_a_retry_does_not_help_go_on_and_are_counted_apart(ledger):
    first = unstable(BATCH, 0, 1)
    ledger.results.complete(first)
    second = unstable(retry_after(MANIFEST, first), 1)
    ledger.results.complete(second)
    progress = progress_of(ledger)
    assert progress.rows_retried == 2
    assert progress.counts["rows_retried_again"] == 1
    assert progress.unstable_at(Rung.SELECTIVE_FP32) == 1
    assert progress.batches_done == 0
    assert ledger.results.all(BATCH.job) == [second]
    third = retry_after(MANIFEST, second)
    assert (third.rung, third.previous_rung, third.records) == (Rung.FP32, Rung.SELECTIVE_FP32, 1)
    assert list(ledger.batches.outstanding(MANIFEST)) == [third, OTHER]


def test_a_quarantine_at_the_last_rung_finishes_the_job(ledger):
    ledger.results.complete(ok(OTHER))
    last = unstable(climb(ledger, climb(ledger)))
    assert last.next is None
    assert ledger.results.complete(last)
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.rows_quarantined == 1
    assert progress.unstable_at(Rung.FP32) == 1
    assert progress.batches_at(Rung.FP32) == 1
    assert progress.rows_done == 7
    assert ledger.results.all(BATCH.job) == [last]
    assert last.quarantined == last.unstable
    assert list(ledger.batches.outstanding(MANIFEST)) == []


@pytest.mark.parametrize("climbed", [0, 1])
def test_a_worker_in_fp32_quarantines_at_whichever_rung_it_was_given(ledger, climbed):
    batch = climb(ledger) if climbed else BATCH
    ledger.results.complete(unstable(batch, precision=Rung.FP32))
    progress = progress_of(ledger)
    assert progress.batches_done == progress.rows_quarantined == 1
    assert progress.unstable_at(batch.rung) == 1
    assert ledger.batches.retries(MANIFEST) == {}


@pytest.mark.parametrize("again", [ok, unstable, failed])
def test_duplicates_of_the_first_report_change_nothing_once_the_retry_is_done(ledger, again):
    ledger.results.complete(ok(climb(ledger)))
    before = everything(ledger)
    assert not ledger.results.complete(again(BATCH))
    assert not ledger.results.complete(again(BATCH), owner="late")
    assert everything(ledger) == before
    assert try_to_claim(ledger, BATCH, owner="b") is ClaimOutcome.DONE
    assert outstanding_places(ledger) == [(1, Rung.FP16)]


@pytest.mark.parametrize("again", [ok, unstable, failed])
def test_duplicates_of_the_first_report_change_nothing_while_the_retry_is_under_way(ledger, again):
    retry = climb(ledger)
    try_to_claim(ledger, retry)
    before = everything(ledger)
    assert not ledger.results.complete(again(BATCH))
    assert everything(ledger) == before
    assert ledger.results.complete(ok(retry), owner="a")


def test_a_retry_that_is_reported_twice_is_counted_once(ledger):
    retry = climb(ledger)
    assert ledger.results.complete(ok(retry))
    before = everything(ledger)
    assert not ledger.results.complete(ok(retry))
    assert not ledger.results.complete(unstable(retry))
    assert not ledger.results.complete(failed(retry))
    assert everything(ledger) == before


def test_a_failed_retry_ends_its_batch_and_keeps_what_was_seen_before(ledger):
    ledger.results.complete(ok(OTHER))
    retry = climb(ledger)
    assert ledger.results.complete(failed(retry))
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.batches_failed == progress.batches_at(Rung.SELECTIVE_FP32) == 1
    assert ledger.results.all(BATCH.job) == [unstable(BATCH), failed(retry)]
    assert ledger.batches.retries(MANIFEST) == {}
    assert list(ledger.batches.outstanding(MANIFEST)) == []


def test_a_failed_retry_that_is_reopened_is_to_do_again_at_its_rung(ledger):
    ledger.results.complete(ok(OTHER))
    retry = climb(ledger)
    try_to_claim(ledger, retry)
    ledger.results.complete(failed(retry), owner="a")
    assert ledger.results.reopen(failed(retry))
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert (progress.batches_done, progress.batches_failed) == (1, 0)
    assert progress.batches_at(Rung.SELECTIVE_FP32) == 0
    assert progress.batches_at(Rung.FP16) == 2
    assert list(ledger.batches.outstanding(MANIFEST)) == [retry]
    assert take(ledger, retry, "b").attempts == 1
    assert ledger.results.complete(ok(retry), owner="b")
    assert progress_of(ledger).finished
    assert ledger.results.all(BATCH.job) == []


def test_a_retry_that_this_ledger_never_asked_for_is_not_counted(ledger):
    """The retry was running when the ledger was rebuilt without the result that it retries."""
    retry = retry_after(MANIFEST, unstable(BATCH))
    before = everything(ledger)
    assert not ledger.results.complete(ok(retry))
    assert not ledger.results.complete(failed(retry))
    assert everything(ledger) == before
    ledger.results.complete(unstable(BATCH))
    assert ledger.results.complete(ok(retry))
    assert progress_of(ledger).batches_done == 1


@pytest.mark.parametrize("report", [ok, unstable, failed])
@pytest.mark.parametrize(
    "first", [failed(BATCH), unstable(BATCH, precision=Rung.FP32)], ids=["failed", "quarantined"]
)
def test_a_retry_of_what_this_ledger_sent_nowhere_is_not_counted(ledger, first, report):
    """The rebuilt ledger has another result of the batch than the one that is retried."""
    retry = retry_after(MANIFEST, unstable(BATCH))
    ledger.results.complete(first)
    before = everything(ledger)
    assert not ledger.results.complete(report(retry))
    assert everything(ledger) == before
