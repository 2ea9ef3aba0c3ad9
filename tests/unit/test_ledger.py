"""The ledger on a real Redis: who may compute what, and what has been counted."""

from collections import Counter
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.broker import queue_name
from common.ledger import (
    LEASE_SECONDS,
    WORKER_TTL_SECONDS,
    Claim,
    JobState,
    Ledger,
    OnInstability,
    Progress,
    WorkerInfo,
    field_of,
    job_key,
)
from common.manifest import Manifest
from common.messages import Batch, BatchResult, Status
from common.modeltable import ModelSource
from common.rungs import Rung, ladder
from tests.support.jobs import TOKENS_PER_RECORD, failed, manifest_of, ok, retry_after, unstable

MANIFEST = manifest_of([3, 5])
BATCH, OTHER = MANIFEST.batch(0), MANIFEST.batch(1)
WEIGHTS = "sha256:1234"
QUEUE = "random.esm2_t6_8M_UR50D.fp16"


@pytest.fixture(autouse=True)
def job(ledger):
    """An open job of two batches."""
    assert ledger.create(MANIFEST, QUEUE)


def claim(ledger: Ledger, batch: Batch = BATCH, owner: str = "a", weights: str = WEIGHTS) -> Claim:
    outcome, _attempt = ledger.claim(batch, owner=owner, weights=weights)
    return outcome


def attempt(ledger: Ledger, owner: str) -> int:
    outcome, attempt = ledger.claim(BATCH, owner=owner, weights=WEIGHTS)
    assert outcome is Claim.TAKEN
    return attempt


def lapse(ledger: Ledger, batch: Batch = BATCH) -> None:
    """Let a lease run out now."""
    ledger.redis.zadd(f"{job_key(batch.job)}:leases", {field_of(batch.index, batch.rung): 1})


def progress_of(ledger: Ledger, manifest: Manifest = MANIFEST) -> Progress:
    progress = ledger.progress(manifest.job)
    assert progress is not None
    return progress


def outstanding_places(ledger: Ledger, manifest: Manifest = MANIFEST) -> list[tuple[int, Rung]]:
    return [(batch.index, batch.rung) for batch in ledger.outstanding(manifest)]


def climb(ledger: Ledger, batch: Batch = BATCH) -> Batch:
    """Report a row of a batch as not finite; returns the message that retries it."""
    result = unstable(batch)
    assert ledger.complete(result)
    return retry_after(MANIFEST, result)


def everything(ledger: Ledger) -> dict[str, bytes]:
    """All that Redis holds."""
    return {key: ledger.redis.dump(key) for key in ledger.redis.keys()}  # noqa: SIM118


# --- jobs ---------------------------------------------------------------------------------------


def test_a_new_job_is_open_and_has_the_totals_of_its_manifest(ledger):
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert (progress.batches, progress.records, progress.tokens) == (2, 8, 8 * TOKENS_PER_RECORD)
    assert (progress.model, progress.queue) == (MANIFEST.model, QUEUE)
    assert progress.created == MANIFEST.created.timestamp()
    assert (progress.batches_done, progress.rows_done, progress.leased) == (0, 0, 0)
    assert progress.weights is None
    assert progress.rows_by_precision == {}


@pytest.mark.parametrize(
    ("first", "rungs"),
    [("fp16", ["fp16", "selective_fp32", "fp32"]), ("bf16", ["bf16", "fp32"]), ("fp32", ["fp32"])],
)
def test_a_job_may_be_in_the_queues_of_every_rung_from_its_first(ledger, first, rungs):
    manifest = manifest_of([1], job=f"from-{first}", rung=Rung(first))
    ledger.create(manifest, f"path-1.2.{first}")
    queues = progress_of(ledger, manifest).queues
    retries = {rung: f"path-1.2.{first}.{rung}" for rung in rungs[1:]}
    assert queues == {first: f"path-1.2.{first}"} | retries
    assert list(queues) == rungs


@pytest.mark.parametrize("first", [Rung.FP16, Rung.BF16, Rung.FP32])
def test_the_queues_of_a_job_are_those_that_its_batches_are_sent_to(ledger, first):
    manifest = manifest_of([1], job=f"from-{first}", rung=first)
    model = ModelSource.parse(manifest.model)
    ledger.create(manifest, queue_name(model, first, first))
    expected = {rung: queue_name(model, first, rung) for rung in ladder(first)}
    assert progress_of(ledger, manifest).queues == expected


def test_a_job_that_is_created_twice_stays_as_it_is(ledger):
    claim(ledger)
    ledger.complete(ok(BATCH))
    claim(ledger, OTHER)
    before = everything(ledger)
    again = Manifest.model_validate_json(MANIFEST.model_dump_json())
    assert not ledger.create(again, QUEUE)
    assert everything(ledger) == before


def test_a_job_that_was_staged_anew_starts_anew(ledger):
    claim(ledger)
    ledger.complete(failed(BATCH))
    ledger.complete(unstable(OTHER))
    claim(ledger, retry_after(MANIFEST, unstable(OTHER)))
    staged_again = manifest_of([2, 2, 4], created=datetime(2026, 2, 3, tzinfo=UTC))
    assert ledger.create(staged_again, QUEUE)
    assert list(ledger.outstanding(staged_again)) == list(map(staged_again.batch, range(3)))
    assert ledger.retries(staged_again) == {}
    assert ledger.results(staged_again.job) == []
    progress = progress_of(ledger, staged_again)
    assert (progress.batches, progress.batches_done, progress.leased) == (3, 0, 0)
    outcome, attempts = ledger.claim(staged_again.batch(0), owner="b", weights=WEIGHTS)
    assert (outcome, attempts) == (Claim.TAKEN, 1)
    assert ledger.jobs() == [MANIFEST.job]


def test_jobs_are_listed_newest_first(ledger):
    for day in (3, 1, 2):
        created = datetime(2026, 5, day, tzinfo=UTC)
        ledger.create(manifest_of([1], job=f"day-{day}", created=created), QUEUE)
    assert ledger.jobs() == ["day-3", "day-2", "day-1", MANIFEST.job]


def test_an_unknown_job_has_no_progress(ledger):
    assert ledger.progress("none") is None


def test_jobs_do_not_see_each_other(ledger):
    other = manifest_of([3, 5], job="other")
    ledger.create(other, QUEUE)
    ledger.complete(unstable(BATCH))
    claim(ledger, OTHER)
    assert progress_of(ledger, other).count("batches_at_fp16") == 0
    assert list(ledger.outstanding(other)) == [other.batch(0), other.batch(1)]


# --- claims -------------------------------------------------------------------------------------


def test_a_batch_is_taken_by_the_first_who_claims_it(ledger):
    assert claim(ledger, owner="a") is Claim.TAKEN
    assert claim(ledger, owner="b") is Claim.HELD
    assert claim(ledger, OTHER, owner="b") is Claim.TAKEN
    assert progress_of(ledger).leased == 2


def test_a_claim_lasts_as_long_as_a_lease(ledger):
    before, _ = ledger.redis.time()
    claim(ledger)
    after, _ = ledger.redis.time()
    [(_, expiry)] = ledger.redis.zrange(f"{job_key(BATCH.job)}:leases", 0, -1, withscores=True)
    assert before + LEASE_SECONDS <= expiry <= after + LEASE_SECONDS


def test_a_claim_that_is_sent_twice_is_one_attempt(ledger):
    assert attempt(ledger, "a") == 1
    assert attempt(ledger, "a") == 1


def test_a_claim_counts_as_an_attempt_even_if_its_owner_dies(ledger):
    assert attempt(ledger, "a") == 1
    lapse(ledger)
    assert attempt(ledger, "b") == 2
    lapse(ledger)
    ledger.expire_leases(BATCH.job)
    assert attempt(ledger, "c") == 3


def test_a_claim_that_is_refused_is_no_attempt(ledger):
    attempt(ledger, "a")
    claim(ledger, owner="b")
    claim(ledger, OTHER, weights="others")
    lapse(ledger)
    assert attempt(ledger, "b") == 2


def test_a_batch_that_is_done_is_not_given_out_again(ledger):
    ledger.complete(ok(BATCH))
    assert claim(ledger, owner="b") is Claim.DONE


def test_a_batch_that_is_done_at_one_rung_can_be_claimed_at_the_next(ledger):
    retry = climb(ledger)
    assert claim(ledger, BATCH, owner="b") is Claim.DONE
    assert claim(ledger, retry, owner="a") is Claim.TAKEN
    assert claim(ledger, retry, owner="b") is Claim.HELD


def test_attempts_are_counted_at_each_rung_by_itself(ledger):
    attempt(ledger, "a")
    retry = climb(ledger)
    assert ledger.claim(retry, owner="a", weights=WEIGHTS) == (Claim.TAKEN, 1)
    lapse(ledger, retry)
    assert ledger.claim(retry, owner="b", weights=WEIGHTS) == (Claim.TAKEN, 2)


def test_the_first_claim_decides_on_the_weights(ledger):
    assert claim(ledger, BATCH, weights="first") is Claim.TAKEN
    assert claim(ledger, OTHER, weights="second") is Claim.OTHER_WEIGHTS
    assert claim(ledger, OTHER, weights="first") is Claim.TAKEN
    assert progress_of(ledger).weights == "first"


def test_a_batch_of_a_job_that_nobody_knows_is_unknown_and_leaves_nothing(ledger):
    ledger.redis.flushall()
    assert claim(ledger) is Claim.UNKNOWN
    assert everything(ledger) == {}


def test_a_batch_of_a_cancelled_job_is_not_given_out(ledger):
    assert ledger.cancel(BATCH.job) is JobState.CANCELLED
    assert claim(ledger) is Claim.CANCELLED
    assert progress_of(ledger).state is JobState.CANCELLED


# --- leases -------------------------------------------------------------------------------------


def test_an_owner_can_renew_a_lease_even_one_that_has_run_out(ledger):
    claim(ledger, owner="a")
    lapse(ledger)
    assert progress_of(ledger).leased == 0
    assert ledger.renew(BATCH, owner="a")
    assert progress_of(ledger).leased == 1
    assert claim(ledger, owner="b") is Claim.HELD


@pytest.mark.parametrize("action", [Ledger.renew, Ledger.release])
def test_a_stranger_can_neither_renew_nor_release(ledger, action):
    claim(ledger, owner="a")
    before = everything(ledger)
    assert not action(ledger, BATCH, owner="b")
    assert everything(ledger) == before


@pytest.mark.parametrize("action", [Ledger.renew, Ledger.release])
def test_a_lease_that_is_not_there_can_neither_be_renewed_nor_released(ledger, action):
    assert not action(ledger, BATCH, owner="a")
    assert progress_of(ledger).leased == 0


def test_an_owner_whose_batch_was_taken_over_cannot_renew(ledger):
    claim(ledger, owner="a")
    lapse(ledger)
    claim(ledger, owner="b")
    assert not ledger.renew(BATCH, owner="a")
    assert ledger.renew(BATCH, owner="b")


def test_a_batch_that_was_given_back_can_be_claimed_at_once(ledger):
    claim(ledger, owner="a")
    assert ledger.release(BATCH, owner="a")
    assert attempt(ledger, "b") == 2


def test_who_gave_a_batch_back_can_neither_renew_nor_release_it(ledger):
    claim(ledger, owner="a")
    ledger.release(BATCH, owner="a")
    assert not ledger.renew(BATCH, owner="a")
    assert not ledger.release(BATCH, owner="a")


def test_leases_that_ran_out_are_taken_back_once_and_the_others_stay(ledger):
    claim(ledger, owner="a")
    claim(ledger, OTHER, owner="b")
    lapse(ledger, OTHER)
    assert ledger.expire_leases(BATCH.job) == [(OTHER.index, Rung.FP16)]
    assert ledger.expire_leases(BATCH.job) == []
    assert not ledger.renew(OTHER, owner="b")
    assert ledger.renew(BATCH, owner="a")
    assert progress_of(ledger).count("leases_lost") == 1


def test_a_retry_s_lease_that_ran_out_is_taken_back_at_its_rung(ledger):
    retry = climb(ledger)
    claim(ledger, retry, owner="a")
    claim(ledger, OTHER, owner="a")
    assert outstanding_places(ledger) == []
    lapse(ledger, retry)
    lapse(ledger, OTHER)
    assert ledger.expire_leases(BATCH.job) == [(0, Rung.SELECTIVE_FP32), (1, Rung.FP16)]
    assert not ledger.renew(retry, owner="a")
    assert list(ledger.outstanding(MANIFEST)) == [retry, OTHER]
    assert progress_of(ledger).count("leases_lost") == 2


# --- results ------------------------------------------------------------------------------------


def test_a_result_counts_its_rows_tokens_and_time(ledger):
    claim(ledger)
    assert ledger.complete(ok(BATCH))
    progress = progress_of(ledger)
    assert (progress.batches_done, progress.rows_done) == (1, 3)
    assert progress.count("batches_ok") == 1
    assert progress.count("batches_at_fp16") == 1
    assert progress.count("embedded_at_fp16") == 3
    assert progress.count("tokens_done") == 3 * TOKENS_PER_RECORD
    assert progress.count("milliseconds") == 250
    assert progress.leased == 0


def test_a_batch_is_counted_once_however_often_it_is_reported(ledger):
    assert ledger.complete(ok(BATCH, worker="a"))
    before = everything(ledger)
    assert not ledger.complete(ok(BATCH, worker="a"))
    assert not ledger.complete(unstable(BATCH))
    assert not ledger.complete(failed(BATCH))
    assert everything(ledger) == before


def test_a_late_report_after_that_of_another_changes_nothing(ledger):
    claim(ledger, owner="late")
    lapse(ledger)
    claim(ledger, owner="quick")
    assert ledger.complete(ok(BATCH, worker="quick"))
    before = everything(ledger)
    assert not ledger.complete(ok(BATCH, worker="late"))
    assert not ledger.renew(BATCH, owner="late")
    assert everything(ledger) == before


def test_the_first_report_counts_even_if_the_lease_is_another_s(ledger):
    claim(ledger, owner="late")
    lapse(ledger)
    claim(ledger, owner="quick")
    assert ledger.complete(ok(BATCH, worker="late"))
    assert not ledger.renew(BATCH, owner="quick")
    assert not ledger.complete(ok(BATCH, worker="quick"))
    assert progress_of(ledger).batches_done == 1


def test_a_failure_counts_while_its_owner_still_has_the_batch_even_if_the_lease_ran_out(ledger):
    claim(ledger, owner="a")
    lapse(ledger)
    assert ledger.complete(failed(BATCH), owner="a")
    assert progress_of(ledger).count("batches_failed") == 1


def test_a_failure_does_not_beat_the_one_who_took_over(ledger):
    claim(ledger, owner="late")
    lapse(ledger)
    assert claim(ledger, owner="quick") is Claim.TAKEN
    assert not ledger.complete(failed(BATCH), owner="late")
    assert ledger.renew(BATCH, owner="quick")
    assert ledger.complete(ok(BATCH), owner="quick")
    progress = progress_of(ledger)
    assert (progress.batches_done, progress.count("batches_failed")) == (1, 0)


def test_a_failure_does_not_count_once_the_batch_was_taken_back_to_be_queued_again(ledger):
    claim(ledger, owner="late")
    lapse(ledger)
    ledger.expire_leases(BATCH.job)
    before = everything(ledger)
    assert not ledger.complete(failed(BATCH), owner="late")
    assert everything(ledger) == before
    assert attempt(ledger, "next") == 2


def test_a_failure_of_somebody_who_gave_the_batch_back_does_not_count(ledger):
    claim(ledger, owner="a")
    ledger.release(BATCH, owner="a")
    assert not ledger.complete(failed(BATCH), owner="a")
    assert list(ledger.outstanding(MANIFEST)) == [BATCH, OTHER]


@pytest.mark.parametrize("report", [ok, unstable])
def test_a_result_with_numbers_counts_whoever_has_the_batch(ledger, report):
    claim(ledger, owner="late")
    lapse(ledger)
    ledger.expire_leases(BATCH.job)
    assert ledger.complete(report(BATCH), owner="late")
    assert claim(ledger, owner="next") is Claim.DONE


def test_rows_are_counted_by_the_precision_of_their_numbers_and_by_the_rung_they_were_at(ledger):
    ledger.complete(ok(BATCH, precision=Rung.FP16))
    ledger.complete(ok(OTHER, precision=Rung.FP32))
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 3, "fp32": 5}
    assert progress.count("embedded_at_fp16") == 8
    assert progress.count("embedded_at_fp32") == 0


def test_an_unstable_batch_counts_its_good_rows_and_keeps_what_was_seen_of_the_bad(ledger):
    result = unstable(BATCH)
    ledger.complete(result)
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 2}
    assert progress.count("rows_retried") == progress.count("unstable_at_fp16") == 1
    assert progress.count("embedded_at_fp16") == 2
    assert progress.count("batches_numerical_instability") == 1
    assert ledger.results(BATCH.job) == [result]
    assert ledger.result(BATCH.job, BATCH.index, Rung.FP16) == result
    assert ledger.result(BATCH.job, BATCH.index, Rung.SELECTIVE_FP32) is None


def test_a_failed_batch_has_no_rows_and_keeps_its_error(ledger):
    ledger.complete(failed(BATCH))
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {}
    assert progress.count("batches_failed") == progress.batches_done == 1
    assert progress.count("rows_quarantined") == 0
    assert ledger.results(BATCH.job) == [failed(BATCH)]


def test_results_that_were_not_ok_are_listed_by_batch(ledger):
    ledger.complete(failed(OTHER))
    ledger.complete(unstable(BATCH))
    assert ledger.results(BATCH.job) == [unstable(BATCH), failed(OTHER)]


def test_a_job_is_finished_with_its_last_batch_and_not_before(ledger):
    ledger.complete(ok(OTHER))
    ledger.complete(ok(OTHER))
    assert progress_of(ledger).state is JobState.OPEN
    ledger.complete(failed(BATCH))
    assert progress_of(ledger).finished


def test_a_report_on_a_job_that_nobody_knows_leaves_nothing(ledger):
    ledger.redis.flushall()
    assert not ledger.complete(ok(BATCH))
    assert everything(ledger) == {}


def test_a_failed_batch_that_is_reopened_is_as_if_it_had_never_run(ledger):
    ledger.complete(ok(OTHER))
    attempt(ledger, "a")
    ledger.complete(failed(BATCH))
    assert ledger.reopen(failed(BATCH))
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert (progress.batches_done, progress.count("batches_failed")) == (1, 0)
    assert progress.count("batches_at_fp16") == 1
    assert ledger.results(BATCH.job) == []
    assert list(ledger.outstanding(MANIFEST)) == [BATCH]
    assert attempt(ledger, "b") == 1
    assert ledger.complete(ok(BATCH))
    assert progress_of(ledger).finished


def test_a_batch_is_reopened_once(ledger):
    ledger.complete(failed(BATCH))
    assert ledger.reopen(failed(BATCH))
    before = everything(ledger)
    assert not ledger.reopen(failed(BATCH))
    assert everything(ledger) == before


def test_only_what_failed_can_be_reopened(ledger):
    ledger.complete(unstable(BATCH))
    ledger.complete(ok(OTHER))
    before = everything(ledger)
    assert not ledger.reopen(unstable(BATCH))
    assert not ledger.reopen(failed(OTHER))
    assert everything(ledger) == before


def test_a_failed_batch_of_a_cancelled_job_is_reopened_but_not_its_job(ledger):
    ledger.complete(failed(BATCH))
    ledger.redis.hset(job_key(BATCH.job), "state", JobState.CANCELLED)
    assert ledger.reopen(failed(BATCH))
    assert progress_of(ledger).state is JobState.CANCELLED


@pytest.mark.parametrize("batches", [1, 7, 8, 9, 1000])
def test_batches_that_are_neither_done_nor_held_are_outstanding(ledger, batches):
    manifest = manifest_of([1] * batches, job=f"of-{batches}")
    ledger.create(manifest, QUEUE)
    done, held = set(range(0, batches, 3)), set(range(1, batches, 7))
    for index in done:
        ledger.complete(ok(manifest.batch(index)))
    for index in held:
        claim(ledger, manifest.batch(index))
    expected = [index for index in range(batches) if index not in done | held]
    assert list(ledger.outstanding(manifest)) == list(map(manifest.batch, expected))
    assert ledger.done(manifest, Rung.FP16) == done
    assert ledger.done(manifest, Rung.FP32) == set()


# --- the ladder ---------------------------------------------------------------------------------


def test_an_unstable_result_with_a_next_rung_leaves_its_batch_to_do_at_that_rung_alone(ledger):
    ledger.complete(ok(OTHER))
    result = unstable(BATCH, 1, 2)
    assert ledger.complete(result)
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert progress.batches_done == 1
    (retry,) = ledger.outstanding(MANIFEST)
    assert retry == retry_after(MANIFEST, result)
    assert (retry.rung, retry.after, retry.records) == (Rung.SELECTIVE_FP32, Rung.FP16, 2)
    assert ledger.retries(MANIFEST) == {(0, Rung.SELECTIVE_FP32): retry}


def test_retries_go_before_batches_that_nobody_has_begun(ledger):
    retry = climb(ledger, OTHER)
    assert list(ledger.outstanding(MANIFEST)) == [retry, BATCH]


def test_a_retry_s_result_settles_its_batch_and_takes_the_place_of_the_one_before(ledger):
    ledger.complete(ok(OTHER))
    retry = climb(ledger)
    claim(ledger, retry)
    assert list(ledger.outstanding(MANIFEST)) == []
    assert ledger.retries(MANIFEST) == {(0, Rung.SELECTIVE_FP32): retry}
    assert ledger.complete(ok(retry))
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.rows_by_precision == {"fp16": 7, "selective_fp32": 1}
    assert progress.count("rows_retried") == 1
    assert progress.count("rows_retried_again") == progress.count("rows_quarantined") == 0
    assert progress.count("batches_at_selective_fp32") == 1
    assert progress.count("embedded_at_selective_fp32") == 1
    assert progress.count("tokens_done") == 8 * TOKENS_PER_RECORD
    assert ledger.results(BATCH.job) == []
    assert list(ledger.outstanding(MANIFEST)) == []
    assert ledger.retries(MANIFEST) == {}


def test_rows_that_a_retry_does_not_help_go_on_and_are_counted_apart(ledger):
    first = unstable(BATCH, 0, 1)
    ledger.complete(first)
    second = unstable(retry_after(MANIFEST, first), 1)
    ledger.complete(second)
    progress = progress_of(ledger)
    assert progress.count("rows_retried") == 2
    assert progress.count("rows_retried_again") == 1
    assert progress.count("unstable_at_selective_fp32") == 1
    assert progress.batches_done == 0
    assert ledger.results(BATCH.job) == [second]
    third = retry_after(MANIFEST, second)
    assert (third.rung, third.after, third.records) == (Rung.FP32, Rung.SELECTIVE_FP32, 1)
    assert list(ledger.outstanding(MANIFEST)) == [third, OTHER]


def test_a_quarantine_at_the_last_rung_finishes_the_job(ledger):
    ledger.complete(ok(OTHER))
    last = unstable(climb(ledger, climb(ledger)))
    assert last.next is None
    assert ledger.complete(last)
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.count("rows_quarantined") == 1
    assert progress.count("unstable_at_fp32") == 1
    assert progress.count("batches_at_fp32") == 1
    assert progress.rows_done == 7
    assert ledger.results(BATCH.job) == [last]
    assert last.quarantined == last.unstable
    assert list(ledger.outstanding(MANIFEST)) == []


@pytest.mark.parametrize("climbed", [0, 1])
def test_a_worker_in_fp32_quarantines_at_whichever_rung_it_was_given(ledger, climbed):
    batch = climb(ledger) if climbed else BATCH
    ledger.complete(unstable(batch, precision=Rung.FP32))
    progress = progress_of(ledger)
    assert progress.batches_done == progress.count("rows_quarantined") == 1
    assert progress.count(f"unstable_at_{batch.rung}") == 1
    assert ledger.retries(MANIFEST) == {}


@pytest.mark.parametrize("again", [ok, unstable, failed])
def test_duplicates_of_the_first_report_change_nothing_once_the_retry_is_done(ledger, again):
    ledger.complete(ok(climb(ledger)))
    before = everything(ledger)
    assert not ledger.complete(again(BATCH))
    assert not ledger.complete(again(BATCH), owner="late")
    assert everything(ledger) == before
    assert claim(ledger, BATCH, owner="b") is Claim.DONE
    assert outstanding_places(ledger) == [(1, Rung.FP16)]


@pytest.mark.parametrize("again", [ok, unstable, failed])
def test_duplicates_of_the_first_report_change_nothing_while_the_retry_is_under_way(ledger, again):
    retry = climb(ledger)
    claim(ledger, retry)
    before = everything(ledger)
    assert not ledger.complete(again(BATCH))
    assert everything(ledger) == before
    assert ledger.complete(ok(retry), owner="a")


def test_a_retry_that_is_reported_twice_is_counted_once(ledger):
    retry = climb(ledger)
    assert ledger.complete(ok(retry))
    before = everything(ledger)
    assert not ledger.complete(ok(retry))
    assert not ledger.complete(unstable(retry))
    assert not ledger.complete(failed(retry))
    assert everything(ledger) == before


def test_a_failed_retry_ends_its_batch_and_keeps_what_was_seen_before(ledger):
    ledger.complete(ok(OTHER))
    retry = climb(ledger)
    assert ledger.complete(failed(retry))
    progress = progress_of(ledger)
    assert progress.finished
    assert progress.count("batches_failed") == progress.count("batches_at_selective_fp32") == 1
    assert ledger.results(BATCH.job) == [unstable(BATCH), failed(retry)]
    assert ledger.retries(MANIFEST) == {}
    assert list(ledger.outstanding(MANIFEST)) == []


def test_a_failed_retry_that_is_reopened_is_to_do_again_at_its_rung(ledger):
    ledger.complete(ok(OTHER))
    retry = climb(ledger)
    claim(ledger, retry)
    ledger.complete(failed(retry), owner="a")
    assert ledger.reopen(failed(retry))
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert (progress.batches_done, progress.count("batches_failed")) == (1, 0)
    assert progress.count("batches_at_selective_fp32") == 0
    assert progress.count("batches_at_fp16") == 2
    assert list(ledger.outstanding(MANIFEST)) == [retry]
    assert ledger.claim(retry, owner="b", weights=WEIGHTS) == (Claim.TAKEN, 1)
    assert ledger.complete(ok(retry), owner="b")
    assert progress_of(ledger).finished
    assert ledger.results(BATCH.job) == []


def test_a_retry_that_this_ledger_never_asked_for_is_not_counted(ledger):
    """One that was under way when the ledger was made anew without the result that it retries."""
    retry = retry_after(MANIFEST, unstable(BATCH))
    before = everything(ledger)
    assert not ledger.complete(ok(retry))
    assert not ledger.complete(failed(retry))
    assert everything(ledger) == before
    ledger.complete(unstable(BATCH))
    assert ledger.complete(ok(retry))
    assert progress_of(ledger).batches_done == 1


@pytest.mark.parametrize("report", [ok, unstable, failed])
@pytest.mark.parametrize(
    "first", [failed(BATCH), unstable(BATCH, precision=Rung.FP32)], ids=["failed", "quarantined"]
)
def test_a_retry_of_what_this_ledger_sent_nowhere_is_not_counted(ledger, first, report):
    """Made anew, it has another result of the batch than the one that is retried."""
    retry = retry_after(MANIFEST, unstable(BATCH))
    ledger.complete(first)
    before = everything(ledger)
    assert not ledger.complete(report(retry))
    assert everything(ledger) == before


# --- a job that stops at the first instability --------------------------------------------------


def test_a_job_stops_at_an_instability_if_that_was_asked_for_last(ledger):
    assert not ledger.stops_at_instability(BATCH.job)
    for policy in ("fail", "retry", "fail"):
        ledger.resume(BATCH.job, policy)
        assert ledger.stops_at_instability(BATCH.job) == (policy == "fail")
    assert progress_of(ledger).state is JobState.OPEN


def test_what_was_asked_for_is_forgotten_with_the_job(ledger):
    ledger.resume(BATCH.job, "fail")
    ledger.create(manifest_of([3, 5], created=datetime(2026, 2, 3, tzinfo=UTC)), QUEUE)
    assert not ledger.stops_at_instability(BATCH.job)


def test_a_job_that_nobody_knows_cannot_be_resumed_and_stops_at_nothing(ledger):
    ledger.redis.flushall()
    ledger.resume(BATCH.job, "fail")
    assert not ledger.stops_at_instability(BATCH.job)
    assert everything(ledger) == {}


def test_a_job_that_stopped_gives_out_nothing_more_at_any_rung(ledger):
    claim(ledger, BATCH, owner="a")
    assert ledger.complete(unstable(BATCH, stops_job=True), owner="a")
    assert progress_of(ledger).state is JobState.STOPPED
    assert claim(ledger, OTHER) is Claim.STOPPED
    assert claim(ledger, BATCH) is Claim.STOPPED
    assert claim(ledger, retry_after(MANIFEST, unstable(BATCH))) is Claim.STOPPED
    assert progress_of(ledger).leased == 0


def test_finite_rows_of_what_stopped_a_job_are_counted_and_the_others_are_to_be_retried(ledger):
    result = unstable(BATCH, 1, stops_job=True)
    ledger.complete(result)
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 2}
    assert progress.count("rows_retried") == 1
    assert progress.count("batches_failed") == progress.batches_done == 0
    assert ledger.results(BATCH.job) == [result]
    assert list(ledger.outstanding(MANIFEST)) == [retry_after(MANIFEST, result), OTHER]


def test_what_was_under_way_in_a_job_that_stopped_is_counted_and_it_stays_stopped(ledger):
    claim(ledger, OTHER, owner="b")
    ledger.complete(unstable(BATCH, stops_job=True))
    assert ledger.renew(OTHER, owner="b")
    assert ledger.complete(ok(OTHER), owner="b")
    progress = progress_of(ledger)
    assert progress.batches_done == 1
    assert progress.state is JobState.STOPPED


def test_a_job_stops_even_if_it_was_its_last_batch_and_no_rung_is_left(ledger):
    ledger.complete(ok(OTHER))
    ledger.complete(unstable(BATCH, precision=Rung.FP32, stops_job=True))
    progress = progress_of(ledger)
    assert (progress.state, progress.batches_done) == (JobState.STOPPED, 2)
    ledger.resume(BATCH.job, "retry")
    assert progress_of(ledger).finished


def test_a_job_that_was_cancelled_stays_so_when_it_would_stop_and_goes_on_when_resumed(ledger):
    ledger.cancel(BATCH.job)
    ledger.complete(unstable(BATCH, stops_job=True))
    assert progress_of(ledger).state is JobState.CANCELLED
    ledger.resume(BATCH.job, "retry")
    assert progress_of(ledger).state is JobState.OPEN
    assert claim(ledger, OTHER) is Claim.TAKEN


def test_a_batch_of_a_cancelled_job_cannot_be_renewed_until_the_job_goes_on(ledger):
    claim(ledger, owner="a")
    ledger.cancel(BATCH.job)
    assert not ledger.renew(BATCH, owner="a")
    ledger.resume(BATCH.job, "retry")
    assert ledger.renew(BATCH, owner="a")


def test_a_job_that_is_finished_or_unknown_cannot_be_cancelled(ledger):
    ledger.complete(ok(BATCH))
    ledger.complete(ok(OTHER))
    assert ledger.cancel(BATCH.job) is JobState.FINISHED
    assert progress_of(ledger).finished
    assert ledger.cancel("unknown") is None
    assert ledger.progress("unknown") is None


def test_a_job_that_finished_stays_so_when_it_is_resumed(ledger):
    ledger.complete(ok(BATCH))
    ledger.complete(ok(OTHER))
    ledger.resume(BATCH.job, "fail")
    assert progress_of(ledger).finished


@pytest.mark.parametrize("policy", ["retry", "fail"])
def test_a_job_that_is_resumed_goes_on_where_it_stopped(ledger, policy):
    ledger.complete(ok(OTHER))
    result = unstable(BATCH, 1, 2, stops_job=True)
    ledger.complete(result)
    before = progress_of(ledger).counts
    ledger.resume(BATCH.job, policy)
    progress = progress_of(ledger)
    assert (progress.state, progress.counts) == (JobState.OPEN, before)
    (retry,) = ledger.outstanding(MANIFEST)
    assert retry == retry_after(MANIFEST, result)
    assert claim(ledger, BATCH) is Claim.DONE
    assert claim(ledger, retry) is Claim.TAKEN
    assert ledger.complete(ok(retry), owner="a")
    assert progress_of(ledger).finished
    assert progress_of(ledger).rows_by_precision == {"fp16": 6, "selective_fp32": 2}


def test_a_job_stops_again_at_the_next_instability_if_it_is_to(ledger):
    result = unstable(BATCH, stops_job=True)
    ledger.complete(result)
    ledger.resume(BATCH.job, "fail")
    ledger.complete(unstable(retry_after(MANIFEST, result), stops_job=True))
    assert progress_of(ledger).state is JobState.STOPPED
    assert outstanding_places(ledger) == [(0, Rung.FP32), (1, Rung.FP16)]


def test_a_duplicate_of_what_stopped_a_job_does_not_stop_it_again(ledger):
    ledger.complete(unstable(BATCH, stops_job=True))
    ledger.resume(BATCH.job, "retry")
    assert not ledger.complete(unstable(BATCH, stops_job=True))
    assert progress_of(ledger).state is JobState.OPEN


# --- workers and queues -------------------------------------------------------------------------

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
    ledger.announce(second)
    ledger.announce(WORKER)
    assert ledger.workers() == [WORKER, second]
    ledger.leave(WORKER)
    assert ledger.workers() == [second]


def test_a_worker_that_falls_silent_is_forgotten(ledger):
    ledger.announce(WORKER)
    (key,) = ledger.redis.keys("*worker:*")
    assert 0 < ledger.redis.ttl(key) <= WORKER_TTL_SECONDS
    ledger.redis.expireat(key, 1)  # as if it had been silent that long
    assert ledger.workers() == []


def test_an_empty_queue_has_no_messages(ledger):
    assert ledger.queued("none") == 0


# --- two workers, duplicate deliveries, leases that run out, in any order -----------------------

BATCH_SIZES = [2, 3, 4, 5, 6]
BATCHES = len(BATCH_SIZES)
owners = st.sampled_from(["a", "b"])
numbers = count()

#: A batch at a rung.
Place = tuple[int, Rung]


@st.composite
def reports(draw: st.DrawFn, batch: Batch) -> BatchResult:
    """What a worker in half precision or in FP32 may report of a batch."""
    precision = draw(st.sampled_from([batch.rung, batch.rung, Rung.FP32]))
    kind = draw(st.sampled_from(["ok", "unstable", "unstable", "failed", "stops"]))
    if kind == "ok":
        return ok(batch, precision=precision)
    if kind == "failed":
        return failed(batch)
    rows = range(draw(st.integers(1, batch.records)))
    return unstable(batch, *rows, precision=precision, stops_job=kind == "stops")


class Fleet(RuleBasedStateMachine):
    """The ledger beside a plain model of what it should say."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.manifest = manifest_of(BATCH_SIZES, job=f"fleet-{next(numbers)}")
        ledger.create(self.manifest, QUEUE)
        first = map(self.manifest.batch, range(BATCHES))
        self.messages: dict[Place, Batch] = {(batch.index, batch.rung): batch for batch in first}
        self.wiped = False
        self.begin()

    def begin(self) -> None:
        """What is known of a job that has just been opened."""
        self.state = JobState.OPEN
        self.policy = "retry"
        self.reports: list[BatchResult] = []  # that were sent
        self.done: dict[Place, BatchResult] = {}
        self.owner: dict[Place, str] = {}  # of a lease, run out or not
        self.lapsed: set[Place] = set()
        self.attempts: Counter[Place] = Counter()
        self.lost = 0

    # --- the model ---

    def held(self, place: Place) -> bool:
        return place in self.owner and place not in self.lapsed

    def drop_lease(self, place: Place) -> None:
        self.owner.pop(place, None)
        self.lapsed.discard(place)

    def batches_done(self) -> int:
        return sum(result.next is None for result in self.done.values())

    def counts(self, report: BatchResult, owner: str | None) -> bool:
        """Take note of a report; whether it is the first of its batch at its rung."""
        place = report.index, report.rung
        if report.status is Status.FAILED and owner and self.owner.get(place) != owner:
            return False
        self.drop_lease(place)
        if place in self.done or not self.asked_for(report):
            return False
        self.done[place] = report
        if report.next is not None:
            self.messages[report.index, report.next] = retry_after(self.manifest, report)
        if self.state is JobState.OPEN:
            if report.stops_job:
                self.state = JobState.STOPPED
            elif self.batches_done() == BATCHES:
                self.state = JobState.FINISHED
        return True

    def asked_for(self, report: BatchResult) -> bool:
        """Not of rows that were to be retried before all was wiped."""
        place = report.index, report.rung
        return report.after is None or place in self.done or place in self.retries()

    def reopens(self, result: BatchResult) -> bool:
        """Take note that a batch is to be reopened; whether it can be."""
        place = result.index, result.rung
        if place not in self.done or self.done[place].status is not Status.FAILED:
            return False
        del self.done[place], self.attempts[place]
        if self.state is not JobState.CANCELLED:
            self.state = JobState.OPEN
        return True

    def follower(self, result: BatchResult) -> BatchResult | None:
        """The result of the retry of what was not finite in another."""
        return None if result.next is None else self.done.get((result.index, result.next))

    def results(self) -> list[BatchResult]:
        """What was not ok, unless a retry has been there since and has not failed."""
        results = []
        for _, result in sorted(self.done.items()):
            follower = self.follower(result)
            superseded = follower is not None and follower.status is not Status.FAILED
            if result.status is not Status.OK and not superseded:
                results.append(result)
        return results

    def retries(self) -> dict[Place, Batch]:
        return {
            (result.index, result.next): retry_after(self.manifest, result)
            for result in self.results()
            if result.next is not None and self.follower(result) is None
        }

    # --- what may happen ---

    def any_place(self, data: st.DataObject) -> Place:
        return data.draw(st.sampled_from(sorted(self.messages)))

    def place_to_do(self, data: st.DataObject) -> Place:
        unsettled = sorted(self.messages.keys() - self.done.keys())
        return data.draw(st.sampled_from(unsettled)) if unsettled else self.any_place(data)

    @rule(data=st.data(), owner=owners)
    def claim(self, data: st.DataObject, owner: str) -> None:
        self.try_to_take(self.any_place(data), owner)

    def try_to_take(self, place: Place, owner: str) -> None:
        found = self.ledger.claim(self.messages[place], owner=owner, weights=WEIGHTS)
        if self.state in (JobState.STOPPED, JobState.CANCELLED):
            assert found == (Claim(self.state), 0)
        elif place in self.done:
            assert found == (Claim.DONE, 0)
        elif self.held(place) and self.owner[place] != owner:
            assert found == (Claim.HELD, 0)
        else:
            self.attempts[place] += not self.held(place)
            self.lapsed.discard(place)
            self.owner[place] = owner
            assert found == (Claim.TAKEN, self.attempts[place])

    @precondition(lambda self: self.owner)
    @rule(data=st.data(), owner=owners, release=st.booleans())
    def renew_or_release(self, data: st.DataObject, owner: str, release: bool) -> None:
        place = self.any_place(data)
        is_owner = self.owner.get(place) == owner
        is_owner &= release or self.state is not JobState.CANCELLED
        action = self.ledger.release if release else self.ledger.renew
        assert action(self.messages[place], owner=owner) == is_owner
        if is_owner and release:
            self.drop_lease(place)
        elif is_owner:
            self.lapsed.discard(place)

    @rule(data=st.data(), owner=owners)
    def take_and_complete(self, data: st.DataObject, owner: str) -> None:
        place = self.place_to_do(data)
        self.try_to_take(place, owner)
        self.report(data.draw(reports(self.messages[place])), owner)

    @rule(data=st.data(), owner=st.none() | owners)
    def complete(self, data: st.DataObject, owner: str | None) -> None:
        place = self.place_to_do(data)
        self.report(data.draw(reports(self.messages[place])), owner)

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), owner=st.none() | owners, anew=st.booleans())
    def report_again(self, data: st.DataObject, owner: str | None, anew: bool) -> None:
        report = data.draw(st.sampled_from(self.reports))
        if anew:  # the batch was computed twice, and what came of it differs
            report = data.draw(reports(self.messages[report.index, report.rung]))
        self.report(report, owner)

    def report(self, report: BatchResult, owner: str | None) -> None:
        if self.asked_for(report):
            self.reports.append(report)
        assert self.ledger.complete(report, owner=owner) == self.counts(report, owner)

    @precondition(lambda self: self.owner)
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.owner)))
        lapse(self.ledger, self.messages[place])
        self.lapsed.add(place)

    @precondition(lambda self: self.owner)
    @rule()
    def expire_leases(self) -> None:
        assert self.ledger.expire_leases(self.manifest.job) == sorted(self.lapsed)
        self.lost += len(self.lapsed)
        for place in list(self.lapsed):
            self.drop_lease(place)

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        result = data.draw(st.sampled_from(self.reports))
        assert self.ledger.reopen(result) == self.reopens(result)

    @rule(policy=st.sampled_from(["retry", "fail"]))
    def resume(self, policy: OnInstability) -> None:
        self.ledger.resume(self.manifest.job, policy)
        self.policy = policy
        if self.state in (JobState.STOPPED, JobState.CANCELLED):
            finished = self.batches_done() == BATCHES
            self.state = JobState.FINISHED if finished else JobState.OPEN

    @rule()
    def cancel(self) -> None:
        if self.state in (JobState.OPEN, JobState.STOPPED):
            self.state = JobState.CANCELLED
        assert self.ledger.cancel(self.manifest.job) is self.state

    @precondition(lambda self: len(self.done) > 3 and not self.wiped)
    @rule()
    def wipe(self) -> None:
        """All is forgotten, in the store too; but messages are still queued, of retries too."""
        self.ledger.forget(self.manifest.job)
        assert self.ledger.create(self.manifest, QUEUE)
        self.begin()
        self.wiped = True

    # --- what must be so at any time ---

    @invariant()
    def counts_and_state_are_those_of_the_model(self) -> None:
        expected: Counter[str] = Counter(leases_lost=self.lost, batches_done=self.batches_done())
        for result in self.done.values():
            expected[f"batches_{result.status}"] += 1
            expected[f"batches_at_{result.rung}"] += 1
            expected[f"embedded_at_{result.rung}"] += result.records
            expected[f"unstable_at_{result.rung}"] += len(result.unstable)
            expected[f"rows_{result.precision}"] += result.records
            expected["rows_quarantined"] += len(result.quarantined)
            if result.next is not None:
                retried = "rows_retried" if result.after is None else "rows_retried_again"
                expected[retried] += len(result.unstable)
            expected["tokens_done"] += result.tokens
            expected["milliseconds"] += 250 * (result.status is not Status.FAILED)
        progress = progress_of(self.ledger, self.manifest)
        assert progress.state is self.state
        assert self.ledger.stops_at_instability(self.manifest.job) == (self.policy == "fail")
        assert progress.leased == sum(map(self.held, self.messages))
        totals = {"batches": BATCHES, "records": sum(BATCH_SIZES), "tokens": self.manifest.tokens}
        assert Counter(progress.counts) == expected + Counter(totals)
        self.no_row_is_lost_and_none_counted_twice(progress)

    def no_row_is_lost_and_none_counted_twice(self, progress: Progress) -> None:
        failed = [self.messages[r.index, r.rung] for r in self.done.values() if r.error]
        without = sum(batch.records for batch in [*failed, *self.retries().values()])
        begun = {index for index, rung in self.done if rung is self.manifest.rung}
        known = progress.rows_done + progress.count("rows_quarantined") + without
        assert known == sum(BATCH_SIZES[index] for index in begun)

    @invariant()
    def results_and_what_is_to_be_done_are_those_of_the_model(self) -> None:
        assert self.ledger.results(self.manifest.job) == self.results()
        retries = self.retries()
        assert self.ledger.retries(self.manifest) == retries
        first = [(index, self.manifest.rung) for index in range(BATCHES)]
        places = [*retries, *(place for place in first if place not in self.done)]
        expected = [self.messages[place] for place in places if place not in self.owner]
        assert list(self.ledger.outstanding(self.manifest)) == expected


def test_counts_are_right_whatever_happens_in_whatever_order(ledger):
    run_state_machine_as_test(
        lambda: Fleet(ledger), settings=settings(max_examples=100, stateful_step_count=50)
    )


def test_a_message_of_an_earlier_staging_is_not_taken(ledger):
    stale = BATCH.model_copy(update={"created": BATCH.created - 60})
    assert claim(ledger, stale) is Claim.UNKNOWN
    assert claim(ledger) is Claim.TAKEN


def test_weights_that_a_restored_job_began_with_are_kept(ledger):
    ledger.pin_weights(BATCH.job, "others")
    assert claim(ledger) is Claim.OTHER_WEIGHTS


def test_a_job_is_staged_by_one_producer_at_a_time(ledger):
    assert ledger.hold_staging("new", "a")
    assert ledger.hold_staging("new", "a")
    assert not ledger.hold_staging("new", "b")
    ledger.release_staging("new", "b")
    assert not ledger.hold_staging("new", "b")
    ledger.release_staging("new", "a")
    assert ledger.hold_staging("new", "b")
