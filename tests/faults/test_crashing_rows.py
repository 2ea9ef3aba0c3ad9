"""A sequence that kills every process that computes it is quarantined, and nothing else is."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from common.ledger.events import EventKind
from common.local.processes import stop
from common.rungs import PRECISION_CODES
from tests.support.processes import (
    START_SECONDS,
    Fleet,
    running_fleet,
    start_command,
    wait_until,
)
from tests.support.results import load

MODEL = "random:esm2_t6_8M_UR50D"

#: The record that kills its process, and its row.
DEADLY, ROW = "sp|P01178|NEU1_HUMAN", 1


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A broker and a folder as the store; no worker yet."""
    with (
        tempfile.TemporaryDirectory(prefix="fleet-") as folder,
        running_fleet(Path(folder), f"file://{tmp_path}/store") as running,
    ):
        yield running


@contextmanager
def running(fleet: Fleet, log: Path, command: Sequence[str], **more: str) -> Iterator[None]:
    """Run a module until the block ends."""
    with log.open("wb") as output:
        process = start_command(*command, environment={**fleet.environment, **more}, output=output)
    try:
        yield
    finally:
        stop(process, 40)


def test_a_sequence_that_kills_its_processes_is_given_up_after_five_and_all_others_are_embedded(
    fleet, examples, tmp_path
):
    ledger, log = fleet.ledger, tmp_path / "worker.log"
    submitted = fleet.producer("submit", examples, "--model", MODEL, "--batch-tokens=1500")
    job = submitted.stdout.strip()
    keeper = ["tests.support.quick_keeper", "keeper", "--metrics", ""]
    worker = ["tests.support.deadly_worker", "start", "--model", MODEL, "--gpus=none"]
    with (
        running(fleet, tmp_path / "keeper.log", keeper),
        running(fleet, log, worker, DEADLY=DEADLY),
    ):
        wait_until(lambda: ledger.jobs.progress(job).finished, 2 * START_SECONDS)

    # Several batches are in a process at once: those that died with the deadly one are embedded.
    progress = ledger.jobs.progress(job)
    assert progress.batches > 4
    assert (progress.rows_done, progress.rows_quarantined) == (24, 1)
    assert progress.batches_failed == 0
    assert progress.batches_done == progress.batches
    kills = log.read_text().count("ended (signal 9)")
    assert 3 < kills <= 5
    events = [event.event for event in ledger.events.latest(job)]
    assert events.count(EventKind.LEASE_LOST) >= kills
    assert events.count(EventKind.QUARANTINE) == 1

    named = fleet.producer("quarantine", job)
    said = f"row {ROW} {DEADLY!r} (9 letters): the worker process crashed 2 "
    assert named.stdout.startswith(said)
    assert "1 sequence of job" in named.stderr
    fetched = fleet.producer("fetch", job, "-o", tmp_path / "out.h5")
    assert fetched.returncode == 0, fetched.stderr
    found = load(tmp_path / "out.h5")
    others = np.arange(25) != ROW
    assert found["rows"].tolist() == list(range(25))
    assert found["precision"][ROW] == PRECISION_CODES["none"]
    assert (found["precision"][others] == PRECISION_CODES["fp32"]).all()
    assert np.isnan(found["mean"][ROW]).all()
    assert np.isfinite(found["mean"][others]).all()
