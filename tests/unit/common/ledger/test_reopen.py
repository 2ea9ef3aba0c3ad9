"""Reopened results, which are as if they had never been counted."""

import pytest

from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, ReleaseReason
from common.ledger.keys import job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.rungs import Rung
from tests.support.jobs import failed, ok, poisoned, retry_after, unstable
from tests.support.ledgers import BATCH, MANIFEST, OTHER, everything, progress_of, take


def test_a_failed_batch_that_is_reopened_is_as_if_it_had_never_run(ledger):
    ledger.results.complete(ok(OTHER))
    take(ledger, owner="a")
    ledger.results.complete(failed(BATCH))
    assert ledger.results.reopen(failed(BATCH))
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert (progress.batches_done, progress.batches_failed) == (1, 0)
    assert progress.batches_at(Rung.FP16) == 1
    assert ledger.results.all(BATCH.job) == []
    assert list(ledger.batches.outstanding(MANIFEST)) == [BATCH]
    assert take(ledger, owner="b").attempts == 1
    assert ledger.results.complete(ok(BATCH))
    assert progress_of(ledger).finished


def test_a_batch_is_reopened_once(ledger):
    ledger.results.complete(failed(BATCH))
    assert ledger.results.reopen(failed(BATCH))
    before = everything(ledger)
    assert not ledger.results.reopen(failed(BATCH))
    assert everything(ledger) == before


def test_a_failed_batch_of_a_cancelled_job_is_reopened_but_not_its_job(ledger):
    ledger.results.complete(failed(BATCH))
    ledger.redis.hset(job_key(BATCH.job), "state", JobState.CANCELLED)
    assert ledger.results.reopen(failed(BATCH))
    assert progress_of(ledger).state is JobState.CANCELLED


POISONED_AND_UNSTABLE = unstable(BATCH, 0, 1).model_copy(
    update={"poisoned": poisoned(BATCH, 2).poisoned, "records": 0, "tokens": 0}
)


@pytest.mark.parametrize(
    "result",
    [
        ok(BATCH),
        failed(BATCH),
        unstable(BATCH),
        unstable(BATCH, stops_job=True),
        unstable(BATCH, precision=Rung.FP32),
        poisoned(BATCH),
        POISONED_AND_UNSTABLE,
    ],
    ids=["ok", "failed", "unstable", "stops", "quarantined", "poisoned", "poisoned and unstable"],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_to_reopen_a_result_is_the_inverse_of_counting_it_but_for_the_time(ledger, result, is_last):
    if is_last:
        ledger.results.complete(ok(OTHER))
    take(ledger)
    before = everything_but_zeros_and_time(ledger)
    assert ledger.results.complete(result)
    assert everything_but_zeros_and_time(ledger) != before
    assert ledger.results.reopen(result)
    del before["leases"], before["owners"], before["attempts"]
    assert everything_but_zeros_and_time(ledger) == before
    assert take(ledger, owner="next") == ClaimResult(ClaimOutcome.TAKEN, attempts=1)


def everything_but_zeros_and_time(ledger: Ledger) -> dict[str, object]:
    """Return the ledger's data of the job, without zeros and without traces of a report."""
    key, found = job_key(BATCH.job), {}
    counters = ledger.redis.hgetall(key)
    times = {"milliseconds", "started", "tokens_at_start"}
    found["job"] = {k: v for k, v in counters.items() if v != "0" and k not in times}
    for part in ("leases", "owners", "attempts", "deaths", "trails", "results"):
        if ledger.redis.exists(f"{key}:{part}"):
            found[part] = ledger.redis.dump(f"{key}:{part}")
    found["done"] = {rung: ledger.batches.done(MANIFEST, rung).tolist() for rung in Rung}
    found["begun"] = ledger.batches.begun(MANIFEST).tolist()
    return found


@pytest.mark.parametrize("last", [ok, unstable, failed, poisoned])
def test_results_of_several_rungs_are_reopened_from_the_last_on(ledger, last):
    ledger.results.complete(ok(OTHER))
    take(ledger)
    ledger.leases.release(BATCH, owner="a", reason=ReleaseReason.INTERRUPTED)
    before = everything_but_zeros_and_time(ledger)
    results = [unstable(BATCH, 0, 1)]
    results.append(unstable(retry_after(MANIFEST, results[-1]), 0))
    results.append(last(retry_after(MANIFEST, results[-1])))
    assert all(map(ledger.results.complete, results))
    assert progress_of(ledger).finished
    assert all(map(ledger.results.reopen, reversed(results)))
    del before["attempts"]
    assert everything_but_zeros_and_time(ledger) == before
    assert list(ledger.batches.outstanding(MANIFEST)) == [BATCH]


def test_what_was_not_counted_cannot_be_reopened(ledger):
    ledger.results.complete(ok(OTHER))
    before = everything_but_zeros_and_time(ledger)
    assert not ledger.results.reopen(unstable(BATCH))
    assert everything_but_zeros_and_time(ledger) == before


def test_what_led_to_a_result_is_forgotten_with_it(ledger):
    key = job_key(BATCH.job)
    take(ledger, owner="a")
    ledger.leases.save_crash_record(BATCH, CrashRecord(current_row=1), owner="a")
    ledger.leases.release(BATCH, owner="a", reason=ReleaseReason.CRASHED)
    take(ledger, owner="b")
    parts = [f"{key}:{part}" for part in ("leases", "owners", "attempts", "deaths", "trails")]
    assert ledger.redis.exists(*parts) == len(parts)
    ledger.results.complete(ok(BATCH), owner="b")
    assert ledger.redis.exists(*parts) == 0
