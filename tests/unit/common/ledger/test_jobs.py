"""A job in the ledger: opened once, listed, published, staged by one producer at a time."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import numpy as np
import pytest

from common.job.manifest import Manifest
from common.ledger.claims import ClaimOutcome, ClaimResult
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState
from common.model_source import ModelSource
from common.rungs import Rung, ladder
from common.wire.queues import queue_name
from tests.support.jobs import TOKENS_PER_RECORD, failed, manifest_of, ok, retry_after, unstable
from tests.support.ledgers import (
    BATCH,
    MANIFEST,
    OTHER,
    QUEUE,
    climb,
    everything,
    progress_of,
    take,
    try_to_claim,
)


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
    ledger.jobs.create(manifest, f"path-1.2.{first}")
    queues = progress_of(ledger, manifest).queues
    retries = {rung: f"path-1.2.{first}.{rung}" for rung in rungs[1:]}
    assert queues == {first: f"path-1.2.{first}"} | retries
    assert list(queues) == rungs


@pytest.mark.parametrize("first", [Rung.FP16, Rung.BF16, Rung.FP32])
def test_the_queues_of_a_job_are_those_that_its_batches_are_sent_to(ledger, first):
    manifest = manifest_of([1], job=f"from-{first}", rung=first)
    model = ModelSource.parse(manifest.model)
    ledger.jobs.create(manifest, queue_name(model, first, first))
    expected = {rung: queue_name(model, first, rung) for rung in ladder(first)}
    assert progress_of(ledger, manifest).queues == expected


def test_a_job_that_is_created_twice_stays_as_it_is(ledger):
    try_to_claim(ledger)
    ledger.results.complete(ok(BATCH))
    try_to_claim(ledger, OTHER)
    before = everything(ledger)
    again = Manifest.model_validate_json(MANIFEST.model_dump_json())
    assert not ledger.jobs.create(again, QUEUE)
    assert everything(ledger) == before


def test_a_job_that_was_staged_anew_starts_anew(ledger):
    try_to_claim(ledger)
    ledger.results.complete(failed(BATCH))
    ledger.results.complete(unstable(OTHER))
    try_to_claim(ledger, retry_after(MANIFEST, unstable(OTHER)))
    staged_again = manifest_of([2, 2, 4], created=datetime(2026, 2, 3, tzinfo=UTC))
    assert ledger.jobs.create(staged_again, QUEUE)
    assert list(ledger.batches.outstanding(staged_again)) == list(map(staged_again.batch, range(3)))
    assert ledger.batches.retries(staged_again) == {}
    assert ledger.results.all(staged_again.job) == []
    progress = progress_of(ledger, staged_again)
    assert (progress.batches, progress.batches_done, progress.leased) == (3, 0, 0)
    assert take(ledger, staged_again.batch(0), "b") == ClaimResult(ClaimOutcome.TAKEN, attempts=1)
    assert ledger.jobs.names() == [MANIFEST.job]


def test_jobs_are_listed_newest_first(ledger):
    for day in (3, 1, 2):
        created = datetime(2026, 5, day, tzinfo=UTC)
        ledger.jobs.create(manifest_of([1], job=f"day-{day}", created=created), QUEUE)
    assert ledger.jobs.names() == ["day-3", "day-2", "day-1", MANIFEST.job]


def test_an_unknown_job_has_no_progress(ledger):
    assert ledger.jobs.progress("none") is None


def test_jobs_do_not_see_each_other(ledger):
    other = manifest_of([3, 5], job="other")
    ledger.jobs.create(other, QUEUE)
    ledger.results.complete(unstable(BATCH))
    try_to_claim(ledger, OTHER)
    assert progress_of(ledger, other).batches_at(Rung.FP16) == 0
    assert list(ledger.batches.outstanding(other)) == [other.batch(0), other.batch(1)]


def test_a_job_is_staged_by_one_producer_at_a_time(ledger):
    assert ledger.locks.hold_staging("new", "a")
    assert ledger.locks.hold_staging("new", "a")
    assert not ledger.locks.hold_staging("new", "b")
    ledger.locks.release_staging("new", "b")
    assert not ledger.locks.hold_staging("new", "b")
    ledger.locks.release_staging("new", "a")
    assert ledger.locks.hold_staging("new", "b")


def test_a_job_that_many_open_at_once_is_opened_by_one_of_them(ledger):
    """Or it would forget what the first of them has published, and workers have claimed."""
    together = Barrier(16)

    def create(manifest: Manifest) -> bool:
        together.wait()
        return ledger.jobs.create(manifest, QUEUE)

    with ThreadPoolExecutor(16) as threads:
        for number in range(10):
            manifest = manifest_of([1], job=f"new-{number}")
            assert sum(threads.map(create, [manifest] * 16)) == 1


def test_the_states_of_all_jobs_are_listed_newest_first(ledger):
    created = datetime(2026, 5, 1, tzinfo=UTC)
    ledger.jobs.create(manifest_of([1], job="later", created=created), QUEUE)
    ledger.jobs.cancel(MANIFEST.job)
    assert list(ledger.jobs.states().items()) == [
        ("later", (JobState.OPEN, created.timestamp())),
        (MANIFEST.job, (JobState.CANCELLED, MANIFEST.created.timestamp())),
    ]
    ledger.jobs.forget("later")
    assert list(ledger.jobs.states()) == [MANIFEST.job]


# --- what of it is published --------------------------------------------------------------------


def test_published_batches_that_nobody_has_begun_are_waiting(ledger):
    manifest = manifest_of([1] * 20, job="of-20")
    ledger.jobs.create(manifest, QUEUE)
    assert published_and_waiting(ledger, manifest) == (0, 0)
    ledger.jobs.advance(manifest, 8)
    assert published_and_waiting(ledger, manifest) == (8, 8)
    take(ledger, manifest.batch(7))
    ledger.results.complete(ok(manifest.batch(0)))
    assert published_and_waiting(ledger, manifest) == (8, 6)
    take(ledger, manifest.batch(8))  # begun, though as far as we know not published
    assert published_and_waiting(ledger, manifest) == (8, 6)
    ledger.jobs.advance(manifest, 20)
    assert published_and_waiting(ledger, manifest) == (20, 17)


def published_and_waiting(ledger: Ledger, manifest: Manifest) -> tuple[int, int]:
    progress = progress_of(ledger, manifest)
    return progress.published, progress.waiting


def test_what_is_published_only_grows_until_the_job_is_resumed(ledger):
    ledger.jobs.advance(MANIFEST, 2)
    ledger.jobs.advance(MANIFEST, 0)
    assert progress_of(ledger).published == 2
    ledger.jobs.resume(MANIFEST, "retry")
    assert progress_of(ledger).published == 0


def test_what_is_published_of_an_earlier_staging_is_not_noted(ledger):
    before = everything(ledger)
    ledger.jobs.advance(manifest_of([3, 5], created=datetime(2026, 1, 1, tzinfo=UTC)), 2)
    assert everything(ledger) == before


def test_batches_that_are_not_published_can_be_left_out_of_the_outstanding(ledger):
    retry = climb(ledger)
    assert list(ledger.batches.outstanding(MANIFEST, published=0)) == [retry]
    assert list(ledger.batches.outstanding(MANIFEST, published=1)) == [retry]
    assert list(ledger.batches.outstanding(MANIFEST, published=2)) == [retry, OTHER]


def test_what_concerns_an_earlier_staging_changes_nothing_of_a_later_one(ledger):
    later = MANIFEST.model_copy(update={"created": MANIFEST.created + timedelta(hours=1)})
    stored = np.ones(later.batches, bool)
    assert ledger.jobs.create(later, QUEUE, stored)
    before = everything(ledger)
    assert not ledger.jobs.create(MANIFEST, QUEUE)
    assert not ledger.jobs.resume(MANIFEST, "fail")
    assert not ledger.jobs.forget(MANIFEST.job, MANIFEST.created.timestamp())
    ledger.jobs.pin_weights(MANIFEST, "w")
    ledger.jobs.advance(MANIFEST, 2, signed_with="k")
    ledger.batches.set_counted(MANIFEST, [0])
    assert everything(ledger) == before


def test_only_a_closed_job_is_forgotten_where_that_is_asked(ledger):
    created = MANIFEST.created.timestamp()
    assert not ledger.jobs.forget(MANIFEST.job, created, only_closed=True)
    ledger.jobs.cancel(MANIFEST.job)
    assert ledger.jobs.forget(MANIFEST.job, created, only_closed=True)
    assert ledger.jobs.names() == []
