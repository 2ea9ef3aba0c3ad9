"""A store that errs, slows down, hangs, refuses, or is full."""

import resource

import pytest

from common.errors import UserError
from common.store import S3Store
from common.store.base import MARKER
from tests.faults.checks import (
    LARGE,
    assert_nothing_was_lost,
    keeper,
    progress_of,
    submit,
    wait_for_batches,
)
from tests.support.processes import wait_until
from tests.support.s3_proxy import Fault


def test_an_s3_that_errs_slows_down_stalls_and_resets_delays_a_job_and_loses_nothing(
    s3_fleet, bucket, tiny, proteins, reference, tmp_path
):
    with s3_fleet.running_workers(tiny, tmp_path):
        job = submit(s3_fleet, tiny, proteins, tokens=LARGE)
        faults = [
            bucket.fail(Fault.INTERNAL_ERROR, "PUT", "/output/", times=4),
            bucket.fail(Fault.RESET, "PUT", "/output/", times=4),
            bucket.fail(Fault.SLOW_DOWN, "GET", "/input/", times=4),
            bucket.fail(Fault.STALL, "PUT", "/output/", times=2, seconds=3),
        ]
        assert_nothing_was_lost(s3_fleet, job, reference)
    assert [fault.times for fault in faults] == [0, 0, 0, 0]
    assert s3_fleet.producer("verify", job).returncode == 0
    assert progress_of(s3_fleet, job).batches_failed == 0


def test_an_upload_that_is_reset_halfway_each_time_leaves_no_object(
    s3_fleet, bucket, tmp_path, monkeypatch
):
    for name, value in s3_fleet.environment.items():
        monkeypatch.setenv(name, value)
    store = S3Store("embeddings", tmp_path.name)
    store.check_writable()
    fault = bucket.fail(Fault.RESET, "PUT", "/output/")
    with (
        pytest.raises(UserError, match=r"cannot write job/output/0\.h5"),
        store.create("job/output/0.h5") as path,
    ):
        path.write_bytes(bytes(100_000))
    assert 1 < fault.hits <= 5
    assert list(store.keys("")) == []


@pytest.mark.slow
def test_an_s3_that_answers_after_the_client_gave_up_delays_a_job_and_loses_nothing(
    s3_fleet, bucket, tiny, proteins, reference, tmp_path
):
    with s3_fleet.running_workers(tiny, tmp_path):
        job = submit(s3_fleet, tiny, proteins, tokens=LARGE)
        faults = [
            bucket.fail(Fault.STALL, method, part, times=1, seconds=65)
            for method, part in (("GET", "/input/"), ("PUT", "/output/"))
        ]
        assert_nothing_was_lost(s3_fleet, job, reference, seconds=180)
    assert [fault.times for fault in faults] == [0, 0]


@pytest.mark.slow
def test_an_s3_that_denies_access_fails_a_batch_after_five_attempts_and_says_why(
    s3_fleet, bucket, tiny, proteins, reference, tmp_path
):
    with s3_fleet.running_workers(tiny, tmp_path):
        job = submit(s3_fleet, tiny, proteins, tokens=150_000)
        bucket.fail(Fault.ACCESS_DENIED, "PUT", "/output/")
        watched = s3_fleet.producer("watch", job)
        assert watched.returncode == 1
        assert "AccessDenied" in watched.stderr
        assert f"To try again: producer retry {job}" in watched.stderr
        failed = progress_of(s3_fleet, job)
        assert failed.batches_failed == failed.batches
        assert failed.rows_done == 0
        bucket.heal()
        assert s3_fleet.producer("retry", job).returncode == 0
        assert_nothing_was_lost(s3_fleet, job, reference)


def test_an_s3_that_denies_access_for_a_moment_fails_nothing(
    s3_fleet, bucket, tiny, proteins, reference, tmp_path
):
    with s3_fleet.running_workers(tiny, tmp_path):
        job = submit(s3_fleet, tiny, proteins, tokens=LARGE)
        fault = bucket.fail(Fault.ACCESS_DENIED, "PUT", "/output/", times=10)
        assert_nothing_was_lost(s3_fleet, job, reference)
    assert fault.times == 0


def test_a_full_disk_is_said_clearly_ends_no_worker_and_loses_nothing(
    fleet, tiny, proteins, reference, tmp_path
):
    """A disk that is full for files above 200 kB: per-residue shards, but not the log."""
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job = submit(fleet, tiny, proteins, "--include", "mean", "per_residue", tokens=LARGE)
        process = worker.process
        with keeper(fleet):
            wait_for_batches(fleet, job, 5)
            unlimited = resource.RLIM_INFINITY
            process.rlimit(resource.RLIMIT_FSIZE, (200_000, unlimited))
            wait_until(lambda: "is requeued: attempt 1" in worker.log.read_text(), 30)
            assert "File too large" in worker.log.read_text()
            process.rlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
            assert_nothing_was_lost(fleet, job, reference)
        assert worker.process == process
    assert [path.name for path in tmp_path.glob("store/**/.*")] == [MARKER]
