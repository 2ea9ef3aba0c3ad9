"""Counting results: each batch once, and as if never after it is reopened."""

import numpy as np
import pytest

from common.ledger.claims import ClaimOutcome
from common.ledger.progress import JobState
from common.rungs import Rung
from tests.support.jobs import (
    TOKENS_PER_RECORD,
    failed,
    manifest_of,
    ok,
    poisoned,
    retry_after,
    unstable,
)
from tests.support.ledgers import (
    BATCH,
    MANIFEST,
    OTHER,
    QUEUE,
    everything,
    lapse,
    progress_of,
    take,
    try_to_claim,
)


def test_a_result_counts_its_rows_tokens_and_time(ledger):
    try_to_claim(ledger)
    assert ledger.results.complete(ok(BATCH))
    progress = progress_of(ledger)
    assert (progress.batches_done, progress.rows_done) == (1, 3)
    assert progress.counts["batches_ok"] == 1
    assert progress.batches_at(Rung.FP16) == 1
    assert progress.embedded_at(Rung.FP16) == 3
    assert progress.tokens_done == 3 * TOKENS_PER_RECORD
    assert progress.device_seconds == 0.25
    assert progress.leased == 0


def test_a_batch_is_counted_once_however_often_it_is_reported(ledger):
    assert ledger.results.complete(ok(BATCH, worker="a"))
    before = everything(ledger)
    assert not ledger.results.complete(ok(BATCH, worker="a"))
    assert not ledger.results.complete(unstable(BATCH))
    assert not ledger.results.complete(failed(BATCH))
    assert everything(ledger) == before


def test_a_late_report_after_that_of_another_changes_nothing(ledger):
    try_to_claim(ledger, owner="late")
    lapse(ledger)
    try_to_claim(ledger, owner="quick")
    assert ledger.results.complete(ok(BATCH, worker="quick"))
    before = everything(ledger)
    assert not ledger.results.complete(ok(BATCH, worker="late"))
    assert not ledger.leases.renew(BATCH, owner="late")
    assert everything(ledger) == before


def test_the_first_report_counts_even_if_the_lease_is_another_s(ledger):
    try_to_claim(ledger, owner="late")
    lapse(ledger)
    try_to_claim(ledger, owner="quick")
    assert ledger.results.complete(ok(BATCH, worker="late"))
    assert not ledger.leases.renew(BATCH, owner="quick")
    assert not ledger.results.complete(ok(BATCH, worker="quick"))
    assert progress_of(ledger).batches_done == 1


def test_a_failure_counts_while_its_owner_still_has_the_batch_even_if_the_lease_ran_out(ledger):
    try_to_claim(ledger, owner="a")
    lapse(ledger)
    assert ledger.results.complete(failed(BATCH), owner="a")
    assert progress_of(ledger).batches_failed == 1


def test_a_failure_does_not_beat_the_one_who_took_over(ledger):
    try_to_claim(ledger, owner="late")
    lapse(ledger)
    assert try_to_claim(ledger, owner="quick") is ClaimOutcome.TAKEN
    assert not ledger.results.complete(failed(BATCH), owner="late")
    assert ledger.leases.renew(BATCH, owner="quick")
    assert ledger.results.complete(ok(BATCH), owner="quick")
    progress = progress_of(ledger)
    assert (progress.batches_done, progress.batches_failed) == (1, 0)


def test_a_failure_does_not_count_once_the_batch_was_taken_back_to_be_queued_again(ledger):
    try_to_claim(ledger, owner="late")
    lapse(ledger)
    ledger.leases.expire(BATCH.job)
    before = everything(ledger)
    assert not ledger.results.complete(failed(BATCH), owner="late")
    assert everything(ledger) == before
    assert take(ledger, owner="next").attempts == 2


def test_a_failure_of_somebody_who_gave_the_batch_back_does_not_count(ledger):
    try_to_claim(ledger, owner="a")
    ledger.leases.release(BATCH, owner="a")
    assert not ledger.results.complete(failed(BATCH), owner="a")
    assert list(ledger.batches.outstanding(MANIFEST)) == [BATCH, OTHER]


@pytest.mark.parametrize("report", [ok, unstable])
def test_a_result_with_numbers_counts_whoever_has_the_batch(ledger, report):
    try_to_claim(ledger, owner="late")
    lapse(ledger)
    ledger.leases.expire(BATCH.job)
    assert ledger.results.complete(report(BATCH), owner="late")
    assert try_to_claim(ledger, owner="next") is ClaimOutcome.DONE


def test_rows_are_counted_by_the_precision_of_their_numbers_and_by_the_rung_they_were_at(ledger):
    ledger.results.complete(ok(BATCH, precision=Rung.FP16))
    ledger.results.complete(ok(OTHER, precision=Rung.FP32))
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 3, "fp32": 5}
    assert progress.embedded_at(Rung.FP16) == 8
    assert progress.embedded_at(Rung.FP32) == 0


def test_an_unstable_batch_counts_its_good_rows_and_keeps_what_was_seen_of_the_bad(ledger):
    result = unstable(BATCH)
    ledger.results.complete(result)
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 2}
    assert progress.rows_retried == progress.unstable_at(Rung.FP16) == 1
    assert progress.embedded_at(Rung.FP16) == 2
    assert progress.counts["batches_numerical_instability"] == 1
    assert ledger.results.all(BATCH.job) == [result]
    assert ledger.results.get(BATCH.job, BATCH.index, Rung.FP16) == result
    assert ledger.results.get(BATCH.job, BATCH.index, Rung.SELECTIVE_FP32) is None


def test_a_failed_batch_has_no_rows_and_keeps_its_error(ledger):
    ledger.results.complete(failed(BATCH))
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {}
    assert progress.batches_failed == progress.batches_done == 1
    assert progress.rows_quarantined == 0
    assert ledger.results.all(BATCH.job) == [failed(BATCH)]


def test_results_that_were_not_ok_are_listed_by_batch(ledger):
    ledger.results.complete(failed(OTHER))
    ledger.results.complete(unstable(BATCH))
    assert ledger.results.all(BATCH.job) == [unstable(BATCH), failed(OTHER)]


def test_a_job_is_finished_with_its_last_batch_and_not_before(ledger):
    ledger.results.complete(ok(OTHER))
    ledger.results.complete(ok(OTHER))
    assert progress_of(ledger).state is JobState.OPEN
    ledger.results.complete(failed(BATCH))
    assert progress_of(ledger).finished


def test_a_report_on_a_job_that_nobody_knows_leaves_nothing(ledger):
    ledger.redis.flushall()
    assert not ledger.results.complete(ok(BATCH))
    assert everything(ledger) == {}


@pytest.mark.parametrize("batches", [1, 7, 8, 9, 1000])
def test_batches_that_are_neither_done_nor_held_are_outstanding(ledger, batches):
    manifest = manifest_of([1] * batches, job=f"of-{batches}")
    ledger.jobs.create(manifest, QUEUE)
    done = set(range(0, batches, 3))
    held = set(range(1, batches, 7)) - done
    for index in done:
        ledger.results.complete(ok(manifest.batch(index)))
    for index in held:
        try_to_claim(ledger, manifest.batch(index))
    expected = [index for index in range(batches) if index not in done | held]
    assert list(ledger.batches.outstanding(manifest)) == list(map(manifest.batch, expected))
    assert np.flatnonzero(ledger.batches.done(manifest, Rung.FP16)).tolist() == sorted(done)
    assert ledger.batches.done(manifest, Rung.FP32).tolist() == [False] * batches
    assert np.flatnonzero(ledger.batches.begun(manifest)).tolist() == sorted(done | held)
    assert ledger.leases.held(manifest.job) == {(index, Rung.FP16) for index in held}


# --- rows that end their process ----------------------------------------------------------------


def test_rows_that_end_their_process_are_given_up_at_once_and_settle_their_batch(ledger):
    ledger.results.complete(ok(OTHER))
    result = poisoned(BATCH, 1)
    assert ledger.results.complete(result)
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.rows_by_precision == {"fp16": 7}
    assert progress.counts["batches_poisoned"] == progress.rows_quarantined == 1
    assert progress.unstable_at(Rung.FP16) == 0
    (kept,) = ledger.results.all(BATCH.job)
    assert kept.quarantined == result.poisoned
    assert ledger.results.get(BATCH.job, BATCH.index, Rung.FP16) is None
    assert list(ledger.batches.outstanding(MANIFEST)) == []


def test_rows_that_are_not_finite_go_on_and_those_that_end_their_process_do_not(ledger):
    result = unstable(BATCH, 0).model_copy(
        update={"poisoned": poisoned(BATCH, 2).poisoned, "records": 1}
    )
    ledger.results.complete(result)
    progress = progress_of(ledger)
    assert progress.batches_done == 0
    assert progress.rows_retried == progress.rows_quarantined == 1
    retry = retry_after(MANIFEST, result)
    assert retry.records == 1
    assert list(ledger.batches.outstanding(MANIFEST)) == [retry, OTHER]
    assert ledger.results.complete(ok(retry))
    (kept,) = ledger.results.all(BATCH.job)
    assert kept.quarantined == result.poisoned  # also once the others are done
    assert progress_of(ledger).batches_done == 1


# --- results of an earlier staging --------------------------------------------------------------


@pytest.mark.parametrize("report", [ok, unstable, failed, poisoned])
def test_a_result_of_an_earlier_staging_changes_nothing(ledger, report):
    take(ledger)
    stale = report(BATCH).model_copy(update={"created": BATCH.created - 60})
    before = everything(ledger)
    assert not ledger.results.complete(stale, owner="a")
    assert not ledger.results.complete(stale)
    assert everything(ledger) == before
    ledger.results.complete(report(BATCH), owner="a")
    before = everything(ledger)
    assert not ledger.results.reopen(stale)
    assert everything(ledger) == before


def test_a_result_that_does_not_say_of_which_staging_it_is_counts(ledger):
    """Results of earlier workers lack the field."""
    assert ledger.results.complete(ok(BATCH).model_copy(update={"created": None}))
