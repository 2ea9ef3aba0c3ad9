"""The outcome of a batch: what the runner returns, and how it reads."""

import pytest

from common.ledger.keys import job_key
from common.ledger.progress import JobState
from common.rungs import Rung
from tests.support.jobs import failed, manifest_of, ok, poisoned, unstable
from tests.support.worlds import FP16, NEVER, FakeEngine, failing, run_first_rung
from workers.batches.outcome import BatchOutcome, OutcomeKind, outcome_of
from workers.batches.runner import BatchRunner

BATCH = manifest_of([1234, 4]).batch(0)

# --- how it reads ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ok(BATCH), "done 1,234 rows"),
        (unstable(BATCH, 0, 1, 2), "done 1,231 rows, 3 rows on to selective_fp32"),
        (
            unstable(BATCH, 0, precision=Rung.FP32),
            "done 1,233 rows, 1 row to quarantine",
        ),
        (unstable(BATCH, 0, stops_job=True), "done 1,233 rows, 1 row not finite: job stopped"),
        (poisoned(BATCH, 0, 1), "done 1,232 rows, 2 rows to quarantine"),
        (failed(BATCH), "failed: ValueError: no"),
    ],
)
def test_a_result_is_one_line_that_says_what_became_of_its_rows(result, expected):
    assert str(outcome_of(result)) == expected


def test_rows_that_crash_and_rows_that_are_not_finite_are_told_apart():
    both = unstable(BATCH, 0, 1).model_copy(
        update={"poisoned": poisoned(BATCH, 2).poisoned, "records": 1231}
    )
    assert str(outcome_of(both)) == (
        "done 1,231 rows, 2 rows on to selective_fp32, 1 row to quarantine"
    )


# --- what the runner returns ---------------------------------------------------------------------


def test_a_batch_that_is_done_has_its_result(world, batch):
    outcome = world.runner().run(batch)
    assert outcome.kind is OutcomeKind.DONE
    assert outcome.result is not None
    assert str(outcome) == "done 4 rows"


def test_a_batch_with_unstable_rows_says_where_they_go(world, batch):
    runner = world.runner(FakeEngine({0: NEVER}))
    assert str(runner.run(batch)) == "done 3 rows, 1 row on to selective_fp32"
    assert str(runner.run(world.published[0])) == "done 0 rows, 1 row on to fp32"
    assert str(runner.run(world.published[1])) == "done 0 rows, 1 row to quarantine"


def test_a_batch_that_failed_says_why(world, batch):
    outcome = world.runner(failing(ValueError("of no use"))).run(batch)
    assert (outcome.kind, str(outcome)) == (
        OutcomeKind.FAILED,
        "failed: ValueError: of no use",
    )


def held_by_another(runner: BatchRunner, batch) -> None:
    runner.ledger.leases.claim(batch, owner="other", weights="w")


def done_before(runner: BatchRunner, batch) -> None:
    runner.run(batch)


def cancelled(runner: BatchRunner, batch) -> None:
    assert runner.ledger.jobs.cancel(batch.job) is JobState.CANCELLED


def forgotten(runner: BatchRunner, batch) -> None:
    runner.ledger.jobs.forget(batch.job)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (held_by_another, "skipped: lease held by another"),
        (done_before, "skipped: it is done"),
        (cancelled, "skipped: its job is cancelled"),
        (forgotten, "skipped: its job is not in the ledger, or not readable there"),
    ],
)
def test_a_batch_that_cannot_be_claimed_says_why(world, batch, before, expected):
    runner = world.runner()
    before(runner, batch)
    outcome = runner.run(batch)
    assert outcome.kind is OutcomeKind.SKIPPED
    assert str(outcome) == expected


def test_a_batch_whose_lease_was_lost_is_dropped(world, batch):
    outcome = world.runner(FakeEngine(during=lambda: world.take_over(batch))).run(batch)
    assert outcome.kind is OutcomeKind.DROPPED


def test_a_retry_of_which_no_row_is_left_is_skipped(world, batch):
    retry = run_first_rung(world, FakeEngine({0: [FP16]}))
    world.ledger.redis.delete(f"{job_key(world.job)}:results")
    assert str(world.runner().run(retry)) == "skipped: no row is left to retry"


def test_a_batch_whose_job_has_odd_entries_is_refused(world, batch):
    def spoil() -> None:
        world.ledger.redis.delete(f"{job_key(world.job)}:leases")
        world.ledger.redis.set(f"{job_key(world.job)}:leases", "odd")

    outcome = world.runner(FakeEngine(during=spoil)).run(batch)
    assert outcome == BatchOutcome(
        OutcomeKind.REFUSED, f"a key or value of the job {world.job} has the wrong type: delete it"
    )
