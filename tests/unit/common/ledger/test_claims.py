"""Claims and leases: who may compute a batch, for how long, and after how many attempts."""

import pytest

from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, ReleaseReason
from common.ledger.keys import job_key
from common.ledger.leases import LEASE_SECONDS, Leases
from common.ledger.progress import JobState
from common.rungs import Rung
from tests.support.jobs import ok
from tests.support.ledgers import (
    BATCH,
    MANIFEST,
    OTHER,
    climb,
    everything,
    lapse,
    outstanding_places,
    progress_of,
    take,
    try_to_claim,
)


def test_a_batch_is_taken_by_the_first_who_claims_it(ledger):
    assert try_to_claim(ledger, owner="a") is ClaimOutcome.TAKEN
    assert try_to_claim(ledger, owner="b") is ClaimOutcome.HELD
    assert try_to_claim(ledger, OTHER, owner="b") is ClaimOutcome.TAKEN
    assert progress_of(ledger).leased == 2


def test_a_claim_lasts_as_long_as_a_lease(ledger):
    before, _ = ledger.redis.time()
    try_to_claim(ledger)
    after, _ = ledger.redis.time()
    [(_, expiry)] = ledger.redis.zrange(f"{job_key(BATCH.job)}:leases", 0, -1, withscores=True)
    assert before + LEASE_SECONDS <= expiry <= after + LEASE_SECONDS


def test_a_claim_that_is_sent_twice_is_one_attempt(ledger):
    assert take(ledger, owner="a").attempts == 1
    assert take(ledger, owner="a").attempts == 1


def test_a_claim_counts_as_an_attempt_even_if_its_owner_dies(ledger):
    assert take(ledger, owner="a").attempts == 1
    lapse(ledger)
    assert take(ledger, owner="b").attempts == 2
    lapse(ledger)
    ledger.leases.expire(BATCH.job)
    assert take(ledger, owner="c").attempts == 3


def test_a_claim_that_is_refused_is_no_attempt(ledger):
    take(ledger, owner="a")
    try_to_claim(ledger, owner="b")
    try_to_claim(ledger, OTHER, weights="others")
    lapse(ledger)
    assert take(ledger, owner="b").attempts == 2


def test_a_batch_that_is_done_is_not_given_out_again(ledger):
    ledger.results.complete(ok(BATCH))
    assert try_to_claim(ledger, owner="b") is ClaimOutcome.DONE


def test_a_batch_that_is_done_at_one_rung_can_be_claimed_at_the_next(ledger):
    retry = climb(ledger)
    assert try_to_claim(ledger, BATCH, owner="b") is ClaimOutcome.DONE
    assert try_to_claim(ledger, retry, owner="a") is ClaimOutcome.TAKEN
    assert try_to_claim(ledger, retry, owner="b") is ClaimOutcome.HELD


def test_attempts_are_counted_at_each_rung_by_itself(ledger):
    take(ledger, owner="a")
    retry = climb(ledger)
    assert take(ledger, retry).attempts == 1
    lapse(ledger, retry)
    assert take(ledger, retry, "b").attempts == 2


def test_the_first_claim_decides_on_the_weights(ledger):
    assert try_to_claim(ledger, BATCH, weights="first") is ClaimOutcome.TAKEN
    assert try_to_claim(ledger, OTHER, weights="second") is ClaimOutcome.OTHER_WEIGHTS
    assert try_to_claim(ledger, OTHER, weights="first") is ClaimOutcome.TAKEN
    assert progress_of(ledger).weights == "first"


def test_a_batch_of_a_job_that_nobody_knows_is_unknown_and_leaves_nothing(ledger):
    ledger.redis.flushall()
    assert try_to_claim(ledger) is ClaimOutcome.UNKNOWN
    assert everything(ledger) == {}


def test_a_batch_of_a_cancelled_job_is_not_given_out(ledger):
    assert ledger.jobs.cancel(BATCH.job) is JobState.CANCELLED
    assert try_to_claim(ledger) is ClaimOutcome.CANCELLED
    assert progress_of(ledger).state is JobState.CANCELLED


def test_a_message_of_an_earlier_staging_is_not_taken(ledger):
    stale = BATCH.model_copy(update={"created": BATCH.created - 60})
    assert try_to_claim(ledger, stale) is ClaimOutcome.UNKNOWN
    assert try_to_claim(ledger) is ClaimOutcome.TAKEN


def test_weights_that_a_restored_job_began_with_are_kept(ledger):
    ledger.jobs.pin_weights(MANIFEST, "others")
    assert try_to_claim(ledger) is ClaimOutcome.OTHER_WEIGHTS


@pytest.mark.parametrize(
    ("loaded", "outcome"),
    [
        ("other files", ClaimOutcome.OTHER_WEIGHTS),
        ("these files", ClaimOutcome.TAKEN),
        (None, ClaimOutcome.TAKEN),  # a worker that loaded a name
    ],
)
def test_a_job_of_some_files_is_not_given_to_a_worker_that_loaded_others(ledger, loaded, outcome):
    manifest = MANIFEST.model_copy(update={"model_digest": "these files"})
    ledger.jobs.forget(BATCH.job)
    ledger.jobs.create(manifest, "m.fp16")
    found = ledger.leases.claim(BATCH, owner="a", weights="w", model_digest=loaded)
    assert found.outcome is outcome
    # A claim that is refused must not decide on the weights.
    taken = outcome is ClaimOutcome.TAKEN
    assert progress_of(ledger).weights == ("w" if taken else None)
    assert progress_of(ledger).model_digest == "these files"


def test_a_job_of_an_earlier_version_is_given_to_any_worker(ledger):
    found = ledger.leases.claim(BATCH, owner="a", weights="w", model_digest="these files")
    assert found.outcome is ClaimOutcome.TAKEN


# --- leases -------------------------------------------------------------------------------------


def test_an_owner_can_renew_a_lease_even_one_that_has_run_out(ledger):
    try_to_claim(ledger, owner="a")
    lapse(ledger)
    assert progress_of(ledger).leased == 0
    assert ledger.leases.renew(BATCH, owner="a")
    assert progress_of(ledger).leased == 1
    assert try_to_claim(ledger, owner="b") is ClaimOutcome.HELD


@pytest.mark.parametrize("action", [Leases.renew, Leases.release])
def test_a_stranger_can_neither_renew_nor_release(ledger, action):
    try_to_claim(ledger, owner="a")
    before = everything(ledger)
    assert not action(ledger.leases, BATCH, owner="b")
    assert everything(ledger) == before


@pytest.mark.parametrize("action", [Leases.renew, Leases.release])
def test_a_lease_that_is_not_there_can_neither_be_renewed_nor_released(ledger, action):
    assert not action(ledger.leases, BATCH, owner="a")
    assert progress_of(ledger).leased == 0


def test_an_owner_whose_batch_was_taken_over_cannot_renew(ledger):
    try_to_claim(ledger, owner="a")
    lapse(ledger)
    try_to_claim(ledger, owner="b")
    assert not ledger.leases.renew(BATCH, owner="a")
    assert ledger.leases.renew(BATCH, owner="b")


def test_a_batch_that_was_given_back_can_be_claimed_at_once(ledger):
    try_to_claim(ledger, owner="a")
    assert ledger.leases.release(BATCH, owner="a")
    assert take(ledger, owner="b").attempts == 2


def test_who_gave_a_batch_back_can_neither_renew_nor_release_it(ledger):
    try_to_claim(ledger, owner="a")
    ledger.leases.release(BATCH, owner="a")
    assert not ledger.leases.renew(BATCH, owner="a")
    assert not ledger.leases.release(BATCH, owner="a")


def test_leases_that_ran_out_are_taken_back_once_and_the_others_stay(ledger):
    try_to_claim(ledger, owner="a")
    try_to_claim(ledger, OTHER, owner="b")
    lapse(ledger, OTHER)
    assert ledger.leases.expire(BATCH.job) == [(OTHER.index, Rung.FP16, "b")]
    assert ledger.leases.expire(BATCH.job) == []
    assert not ledger.leases.renew(OTHER, owner="b")
    assert ledger.leases.renew(BATCH, owner="a")
    assert progress_of(ledger).leases_lost == 1


def test_a_retry_s_lease_that_ran_out_is_taken_back_at_its_rung(ledger):
    retry = climb(ledger)
    try_to_claim(ledger, retry, owner="a")
    try_to_claim(ledger, OTHER, owner="a")
    assert outstanding_places(ledger) == []
    lapse(ledger, retry)
    lapse(ledger, OTHER)
    assert ledger.leases.expire(BATCH.job) == [
        (0, Rung.SELECTIVE_FP32, "a"),
        (1, Rung.FP16, "a"),
    ]
    assert not ledger.leases.renew(retry, owner="a")
    assert list(ledger.batches.outstanding(MANIFEST)) == [retry, OTHER]
    assert progress_of(ledger).leases_lost == 2


# --- what is known of earlier attempts ----------------------------------------------------------


def test_who_takes_a_batch_over_is_told_from_whom(ledger):
    assert take(ledger, owner="a") == ClaimResult(ClaimOutcome.TAKEN, attempts=1)
    lapse(ledger)
    assert take(ledger, owner="b") == ClaimResult(
        ClaimOutcome.TAKEN, attempts=2, crashes=1, previous_owner="a"
    )
    assert progress_of(ledger).leases_lost == 1


def test_a_lease_that_ran_out_is_a_death_whoever_finds_it(ledger):
    take(ledger, owner="a")
    lapse(ledger)
    ledger.leases.expire(BATCH.job)
    assert take(ledger, owner="b") == ClaimResult(ClaimOutcome.TAKEN, attempts=2, crashes=1)
    lapse(ledger)
    assert take(ledger, owner="c").crashes == 2
    assert progress_of(ledger).leases_lost == 2


@pytest.mark.parametrize(
    ("reason", "next_one"),
    [
        (ReleaseReason.INTERRUPTED, ClaimResult(ClaimOutcome.TAKEN, attempts=1, crashes=0)),
        (ReleaseReason.FAILED, ClaimResult(ClaimOutcome.TAKEN, attempts=2, crashes=0)),
        (ReleaseReason.CRASHED, ClaimResult(ClaimOutcome.TAKEN, attempts=2, crashes=1)),
    ],
)
def test_why_a_batch_was_given_back_says_whether_it_was_an_attempt_and_a_death(
    ledger, reason, next_one
):
    take(ledger, owner="a")
    assert ledger.leases.release(BATCH, owner="a", reason=reason)
    assert not ledger.leases.release(BATCH, owner="a", reason=reason)
    assert take(ledger, owner="b") == next_one
    assert progress_of(ledger).leases_lost == 0


def test_deaths_are_counted_at_each_rung_by_itself(ledger):
    take(ledger, owner="a")
    ledger.leases.release(BATCH, owner="a", reason=ReleaseReason.CRASHED)
    assert take(ledger, climb(ledger)).crashes == 0


def test_a_batch_that_was_claimed_once_is_begun(ledger):
    assert ledger.batches.begun(MANIFEST).tolist() == [False, False]
    take(ledger, OTHER)
    ledger.leases.release(OTHER, owner="a", reason=ReleaseReason.INTERRUPTED)
    assert ledger.batches.begun(MANIFEST).tolist() == [False, True]
    take(ledger, climb(ledger))  # at a higher rung: its batch is done at the first
    assert ledger.batches.begun(MANIFEST).tolist() == [True, True]


# --- trails -------------------------------------------------------------------------------------


def test_what_an_owner_notes_of_a_batch_is_there_for_the_next(ledger):
    assert ledger.leases.crash_record(BATCH) == CrashRecord()
    take(ledger, owner="a")
    trail = CrashRecord(current_row=2, suspects={0: 1})
    assert ledger.leases.save_crash_record(BATCH, trail, owner="a")
    lapse(ledger)
    take(ledger, owner="b")
    assert ledger.leases.crash_record(BATCH) == trail
    assert ledger.leases.crash_record(OTHER) == CrashRecord()


def test_only_the_owner_of_a_batch_can_note_what_it_does(ledger):
    assert not ledger.leases.save_crash_record(BATCH, CrashRecord(current_row=1), owner="a")
    take(ledger, owner="a")
    ledger.leases.save_crash_record(BATCH, CrashRecord(current_row=1), owner="a")
    lapse(ledger)
    take(ledger, owner="b")
    assert not ledger.leases.save_crash_record(BATCH, CrashRecord(current_row=2), owner="a")
    assert ledger.leases.crash_record(BATCH) == CrashRecord(current_row=1)


def test_owners_are_told_of_leases_at_a_rung_of_a_newer_version_too(ledger):
    ledger.redis.hset(f"{job_key(BATCH.job)}:owners", "0.fp8", "w/1")
    assert ledger.leases.owners(BATCH.job) == ["w/1"]
