"""A store that is not mounted, or goes away, or is full: nothing is concluded, nothing is lost."""

import json
import time
from pathlib import Path

import pytest

from common.store import FileStore, StoreError
from tests.faults.checks import (
    LARGE,
    assert_nothing_was_lost,
    keeper,
    progress_of,
    submit,
    wait_for_batches,
)
from tests.support.processes import wait_until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the fleet's store."""
    return tmp_path / "store"


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """Where the folder of the store is while it is not there."""
    return tmp_path / "away"


def test_a_store_that_goes_away_for_eight_seconds_under_load_has_every_counted_batch(
    fleet, tiny, proteins, reference, tmp_path, root, away
):
    with fleet.running_workers(tiny, tmp_path), keeper(fleet):
        job = submit(fleet, tiny, proteins, tokens=LARGE)
        wait_for_batches(fleet, job, 5)
        root.rename(away)
        time.sleep(8)
        assert not root.exists()
        away.rename(root)
        assert_nothing_was_lost(fleet, job, reference)
    assert len(list((root / job / "output").glob("*.h5"))) == progress_of(fleet, job).batches


def test_a_keeper_that_starts_before_the_store_is_mounted_goes_on_once_it_is(
    fleet, tiny, proteins, reference, tmp_path, root, away
):
    job = submit(fleet, tiny, proteins, tokens=LARGE)
    fleet.ledger.redis.hset(f"virnucpro:job:{job}", "published", 0)
    root.rename(away)
    root.mkdir()  # a mount point
    with keeper(fleet) as log:
        wait_until(lambda: "is not a store. Is it mounted?" in log.read_text(), 20)
        time.sleep(3)
        assert log.read_text().count("is not a store") == 1
        root.rmdir()
        away.rename(root)
        with fleet.running_workers(tiny, tmp_path):
            assert_nothing_was_lost(fleet, job, reference)


def test_no_store_is_believed_to_be_empty_while_redis_is(fleet, tiny, proteins, root, away):
    job = submit(fleet, tiny, proteins, tokens=LARGE)
    fleet.ledger.redis.flushall()
    root.rename(away)
    with keeper(fleet):
        time.sleep(4)
        assert fleet.ledger.stores.is_new(f"file://{root}")
        for command in ("watch", "fetch", "resume"):
            options = ["-o", root.parent / "e.h5"] if command == "fetch" else []
            done = fleet.producer(command, job, *options)
            assert done.returncode == 2
            assert "is not a store. Is it mounted?" in done.stderr
        away.rename(root)
        wait_until(lambda: fleet.ledger.jobs.progress(job) is not None, 20)
    assert progress_of(fleet, job).batches_done == 0


def test_a_keeper_waits_for_the_first_submit_to_a_new_store(fleet, tiny, proteins, root):
    with keeper(fleet) as log:
        wait_until(lambda: "or the first submit to it, makes it one." in log.read_text(), 20)
        assert not root.exists()
        job = submit(fleet, tiny, proteins, tokens=LARGE)
        fleet.ledger.redis.flushall()
        wait_until(lambda: fleet.ledger.jobs.progress(job) is not None, 20)


def test_old_jobs_of_a_full_store_are_deleted(fleet, tiny, proteins, root):
    """A disk that is full for every file; a job that was just cancelled is not marked as such."""
    job = submit(fleet, tiny, proteins, tokens=LARGE)
    assert fleet.producer("cancel", job).returncode == 0
    old = root / "old-000000000000"
    (old / "output").mkdir(parents=True)
    (old / "output" / "0000000.fp16.h5").write_bytes(b"x" * 100_000)
    closed = {"state": "finished", "time": "2026-01-01T00:00:00Z"}
    (old / "closed.json").write_text(json.dumps(closed))
    with keeper(fleet, "--keep-days", "30", disk_is_full=True):
        wait_until(lambda: not old.exists(), 30)
        time.sleep(2)
    assert not (root / job / "closed.json").exists()
    with pytest.raises(StoreError):
        FileStore(root).get(f"{job}/closed.json")
