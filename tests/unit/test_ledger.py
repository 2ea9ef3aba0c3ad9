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

from common.ledger import (
    LEASE_SECONDS,
    WORKER_TTL_SECONDS,
    Claim,
    JobState,
    Ledger,
    Progress,
    WorkerInfo,
    field_of,
    job_key,
)
from common.manifest import Manifest
from common.messages import Batch, BatchResult, Instability, Status
from common.rungs import Rung
from tests.support.jobs import TOKENS_PER_RECORD, manifest_of

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


def ok(batch: Batch = BATCH, *, worker: str = "a", precision: Rung = Rung.FP16) -> BatchResult:
    return BatchResult(
        job=batch.job,
        index=batch.index,
        rung=batch.rung,
        status=Status.OK,
        worker=worker,
        precision=precision,
        records=batch.records,
        tokens=batch.tokens,
        seconds=0.25,
    )


def unstable(batch: Batch = BATCH) -> BatchResult:
    row = Instability(row=1, nan=3, inf=0, finite_min=-1.0, finite_max=2.0)
    return ok(batch).model_copy(
        update={
            "status": Status.NUMERICAL_INSTABILITY,
            "records": batch.records - 1,
            "unstable": (row,),
        }
    )


def failed(batch: Batch = BATCH) -> BatchResult:
    return BatchResult(
        job=batch.job,
        index=batch.index,
        rung=batch.rung,
        status=Status.FAILED,
        worker="a",
        error="ValueError: no",
    )


def lapse(ledger: Ledger, batch: Batch = BATCH) -> None:
    """Let a lease run out now."""
    ledger.redis.zadd(f"{job_key(batch.job)}:leases", {field_of(batch.index, batch.rung): 1})


def progress_of(ledger: Ledger, manifest: Manifest = MANIFEST) -> Progress:
    progress = ledger.progress(manifest.job)
    assert progress is not None
    return progress


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
    assert progress.weights is progress.first_done is progress.last_done is None


def test_a_job_that_is_created_twice_stays_as_it_is(ledger):
    claim(ledger)
    ledger.complete(ok())
    claim(ledger, OTHER)
    before = everything(ledger)
    again = Manifest.model_validate_json(MANIFEST.model_dump_json())
    assert not ledger.create(again, QUEUE)
    assert everything(ledger) == before


def test_a_job_that_was_staged_anew_starts_anew(ledger):
    claim(ledger)
    ledger.complete(failed())
    claim(ledger, OTHER)
    staged_again = manifest_of([2, 2, 4], created=datetime(2026, 2, 3, tzinfo=UTC))
    assert ledger.create(staged_again, QUEUE)
    assert list(ledger.outstanding(staged_again)) == [0, 1, 2]
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
    ledger.complete(ok())
    claim(ledger, OTHER)
    assert progress_of(ledger, other).batches_done == 0
    assert list(ledger.outstanding(other)) == [0, 1]


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
    ledger.complete(ok())
    assert claim(ledger, owner="b") is Claim.DONE


def test_a_batch_that_is_done_at_one_rung_can_be_claimed_at_the_next(ledger):
    ledger.complete(unstable())
    again = BATCH.model_copy(update={"rung": Rung.FP32})
    assert claim(ledger, again) is Claim.TAKEN


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
    ledger.redis.hset(job_key(BATCH.job), "state", JobState.CANCELLED)
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
    assert ledger.expire_leases(BATCH.job) == [OTHER.index]
    assert ledger.expire_leases(BATCH.job) == []
    assert not ledger.renew(OTHER, owner="b")
    assert ledger.renew(BATCH, owner="a")
    assert progress_of(ledger).count("leases_lost") == 1


# --- results ------------------------------------------------------------------------------------


def test_a_result_counts_its_rows_tokens_and_time(ledger):
    claim(ledger)
    assert ledger.complete(ok())
    progress = progress_of(ledger)
    assert (progress.batches_done, progress.rows_done) == (1, 3)
    assert progress.count("batches_ok") == 1
    assert progress.count("tokens_done") == 3 * TOKENS_PER_RECORD
    assert progress.count("milliseconds") == 250
    assert progress.leased == 0
    assert progress.first_done is not None
    assert progress.created < progress.first_done <= progress.now


def test_a_batch_is_counted_once_however_often_it_is_reported(ledger):
    assert ledger.complete(ok(worker="a"))
    before = everything(ledger)
    assert not ledger.complete(ok(worker="a"))
    assert not ledger.complete(unstable())
    assert not ledger.complete(failed())
    assert everything(ledger) == before


def test_a_late_report_after_that_of_another_changes_nothing(ledger):
    claim(ledger, owner="late")
    lapse(ledger)
    claim(ledger, owner="quick")
    assert ledger.complete(ok(worker="quick"))
    before = everything(ledger)
    assert not ledger.complete(ok(worker="late"))
    assert not ledger.renew(BATCH, owner="late")
    assert everything(ledger) == before


def test_the_first_report_counts_even_if_the_lease_is_another_s(ledger):
    claim(ledger, owner="late")
    lapse(ledger)
    claim(ledger, owner="quick")
    assert ledger.complete(ok(worker="late"))
    assert not ledger.renew(BATCH, owner="quick")
    assert not ledger.complete(ok(worker="quick"))
    assert progress_of(ledger).batches_done == 1


def test_rows_are_counted_by_the_precision_of_their_numbers(ledger):
    ledger.complete(ok(BATCH, precision=Rung.FP16))
    ledger.complete(ok(OTHER, precision=Rung.FP32))
    assert progress_of(ledger).rows_by_precision == {"fp16": 3, "fp32": 5}


def test_an_unstable_batch_counts_its_good_rows_and_keeps_what_was_seen_of_the_bad(ledger):
    ledger.complete(unstable())
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {"fp16": 2}
    assert progress.count("rows_unstable") == 1
    assert progress.count("batches_numerical_instability") == 1
    assert ledger.results(BATCH.job) == [unstable()]


def test_a_failed_batch_has_no_rows_and_keeps_its_error(ledger):
    ledger.complete(failed())
    progress = progress_of(ledger)
    assert progress.rows_by_precision == {}
    assert progress.count("batches_failed") == progress.batches_done == 1
    assert ledger.results(BATCH.job) == [failed()]


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
    assert not ledger.complete(ok())
    assert everything(ledger) == {}


def test_a_failed_batch_that_is_reopened_is_as_if_it_had_never_run(ledger):
    ledger.complete(ok(OTHER))
    attempt(ledger, "a")
    ledger.complete(failed())
    assert ledger.reopen(failed())
    progress = progress_of(ledger)
    assert progress.state is JobState.OPEN
    assert (progress.batches_done, progress.count("batches_failed")) == (1, 0)
    assert ledger.results(BATCH.job) == []
    assert list(ledger.outstanding(MANIFEST)) == [BATCH.index]
    assert attempt(ledger, "b") == 1
    assert ledger.complete(ok())
    assert progress_of(ledger).finished


def test_a_batch_is_reopened_once(ledger):
    ledger.complete(failed())
    assert ledger.reopen(failed())
    before = everything(ledger)
    assert not ledger.reopen(failed())
    assert everything(ledger) == before


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
    assert list(ledger.outstanding(manifest)) == expected


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
indices = st.integers(0, BATCHES - 1)
owners = st.sampled_from(["a", "b"])
results = st.sampled_from([ok, unstable, failed])


class Fleet(RuleBasedStateMachine):
    """The ledger beside a plain model of what it should say."""

    numbers = count()

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.manifest = manifest_of(BATCH_SIZES, job=f"fleet-{next(self.numbers)}")
        ledger.create(self.manifest, QUEUE)
        self.done: dict[int, BatchResult] = {}
        self.owner: dict[int, str] = {}  # of a lease, run out or not
        self.lapsed: set[int] = set()
        self.attempts: Counter[int] = Counter()
        self.lost = 0

    def held(self, index: int) -> bool:
        return index in self.owner and index not in self.lapsed

    def drop_lease(self, index: int) -> None:
        self.owner.pop(index, None)
        self.lapsed.discard(index)

    @rule(index=indices, owner=owners)
    def claim(self, index: int, owner: str) -> None:
        found = self.ledger.claim(self.manifest.batch(index), owner=owner, weights=WEIGHTS)
        if index in self.done:
            assert found == (Claim.DONE, 0)
        elif self.held(index) and self.owner[index] != owner:
            assert found == (Claim.HELD, 0)
        else:
            self.attempts[index] += not self.held(index)
            self.lapsed.discard(index)
            self.owner[index] = owner
            assert found == (Claim.TAKEN, self.attempts[index])

    @rule(index=indices, owner=owners)
    def renew(self, index: int, owner: str) -> None:
        is_owner = self.owner.get(index) == owner
        assert self.ledger.renew(self.manifest.batch(index), owner=owner) == is_owner
        if is_owner:
            self.lapsed.discard(index)

    @rule(index=indices, owner=owners)
    def release(self, index: int, owner: str) -> None:
        is_owner = self.owner.get(index) == owner
        assert self.ledger.release(self.manifest.batch(index), owner=owner) == is_owner
        if is_owner:
            self.drop_lease(index)

    @rule(index=indices, result=results)
    def complete(self, index: int, result) -> None:
        report = result(self.manifest.batch(index))
        assert self.ledger.complete(report) == (index not in self.done)
        self.done.setdefault(index, report)
        self.drop_lease(index)

    @precondition(lambda self: self.owner)
    @rule(data=st.data())
    def lapse(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.owner)))
        lapse(self.ledger, self.manifest.batch(index))
        self.lapsed.add(index)

    @rule()
    def expire_leases(self) -> None:
        assert self.ledger.expire_leases(self.manifest.job) == sorted(self.lapsed)
        self.lost += len(self.lapsed)
        for index in list(self.lapsed):
            self.drop_lease(index)

    @rule()
    def reopen_what_failed(self) -> None:
        for result in self.ledger.results(self.manifest.job):
            if result.status is Status.FAILED:
                assert self.ledger.reopen(result)
                del self.done[result.index]
                self.attempts[result.index] = 0

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        progress, done = progress_of(self.ledger, self.manifest), self.done.values()
        assert progress.batches_done == len(self.done)
        assert progress.finished == (len(self.done) == BATCHES)
        assert progress.leased == sum(map(self.held, range(BATCHES)))
        assert progress.rows_done == sum(result.records for result in done)
        assert progress.count("rows_unstable") == sum(len(result.unstable) for result in done)
        assert progress.count("tokens_done") == sum(result.tokens for result in done)
        assert progress.count("leases_lost") == self.lost
        for status in Status:
            expected = sum(result.status is status for result in done)
            assert progress.count(f"batches_{status}") == expected

    @invariant()
    def outstanding_batches_are_those_of_the_model(self) -> None:
        expected = [i for i in range(BATCHES) if i not in self.done and i not in self.owner]
        assert list(self.ledger.outstanding(self.manifest)) == expected


def test_counts_are_right_whatever_happens_in_whatever_order(ledger):
    run_state_machine_as_test(
        lambda: Fleet(ledger), settings=settings(max_examples=100, stateful_step_count=50)
    )


def test_a_late_owners_failure_does_not_beat_the_one_who_took_over(ledger):
    claim(ledger, owner="a")
    lapse(ledger)
    assert claim(ledger, owner="b") is Claim.TAKEN
    assert not ledger.complete(failed(), owner="a")
    assert ledger.complete(ok(), owner="b")
    progress = ledger.progress(BATCH.job)
    assert (progress.batches_done, progress.count("batches_failed")) == (1, 0)


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
