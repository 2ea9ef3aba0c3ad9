"""A job under faults: starting it, keeping it going, and checking its result."""

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.ledger.progress import Progress
from common.local.processes import start_dependent, stop
from common.wire.queues import KEY_PREFIX
from tests.support.processes import Fleet, Running, Worker, start_command, wait_until
from tests.support.results import load

#: Tokens in a batch: a few proteins, and some milliseconds of work.
SMALL, LARGE = 2000, 8000

#: Largest difference of a value from the reference, whose sums have another order.
TOLERANCE = 2e-6

#: Seconds that are more than any recovery takes.
FINISH_SECONDS = 90

Reference = Mapping[str, NDArray]


def submit(fleet: Fleet, model: Path, fasta: Path, *options: object, tokens: int = SMALL) -> str:
    """Queue a job of many batches; return its name."""
    done = fleet.producer("submit", fasta, "--model", model, f"--batch-tokens={tokens}", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def keeper(fleet: Fleet, *options: str, disk_is_full: bool = False) -> Iterator[Path]:
    """Run a keeper, which requeues lost batches; yield its log."""
    words = ["keeper", "--metrics", "", *options]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        if disk_is_full:  # no file that it writes may have a byte, not even its log
            command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m"]
            command += ["producer.cli", *words]
            process: Running = start_dependent(command, env=fleet.environment, output=log)
        else:
            process = start_command(
                "producer.cli", *words, environment=fleet.environment, output=log
            )
        try:
            yield Path(folder, "log")
        finally:
            stop(process, 10)


def progress_of(fleet: Fleet, job: str) -> Progress:
    progress = fleet.ledger.jobs.progress(job)
    assert progress is not None
    return progress


def wait_for_batches(fleet: Fleet, job: str, count: int = 20, seconds: float = 60) -> int:
    """Wait until ``count`` further batches are done; return how many are."""
    goal = progress_of(fleet, job).batches_done + count

    def reached() -> int:
        done = progress_of(fleet, job).batches_done
        return done if done >= goal else 0

    return wait_until(reached, seconds)


def claimed_by(fleet: Fleet, job: str, worker: Worker) -> list[str]:
    """Return the batches that a worker's process has now, by their names in the ledger."""
    owners = fleet.ledger.redis.hgetall(f"{KEY_PREFIX}job:{job}:owners")
    sign = f"-{worker.process.pid}@"
    return [field for field, owner in owners.items() if sign in owner]


def assert_nothing_was_lost(
    fleet: Fleet, job: str, reference: Reference, seconds: float = FINISH_SECONDS
) -> None:
    """Check that the job ends, with each row once, in order, with its numbers, and counted once."""
    wait_until(lambda: progress_of(fleet, job).finished, seconds)
    progress = progress_of(fleet, job)
    assert progress.batches_done == progress.counts["batches_ok"] == progress.batches
    assert progress.rows_done == progress.records == len(reference["rows"])
    assert progress.tokens_done == progress.tokens
    assert progress.leased == 0
    assert fleet.ledger.results.all(job) == []
    assert_same_rows(fetched(fleet, job), reference)


def fetched(fleet: Fleet, job: str) -> Reference:
    with tempfile.TemporaryDirectory() as folder:
        done = fleet.producer("fetch", job, "-o", Path(folder, "e.h5"))
        assert done.returncode == 0, done.stderr
        return load(Path(folder, "e.h5"))


def assert_same_rows(found: Reference, reference: Reference) -> None:
    assert found.keys() >= reference.keys()
    assert found["rows"].tolist() == list(range(len(reference["rows"])))
    for name in reference.keys() - {"mean"}:
        assert (found[name] == reference[name]).all(), name
    assert np.abs(found["mean"] - reference["mean"]).max() <= TOLERANCE


def is_elsewhere(fleet: Fleet, job: str, process: int, batch: str) -> bool:
    """Return whether another worker process has a batch, by its name in the ledger, or had it."""
    key, (index, rung) = f"{KEY_PREFIX}job:{job}", batch.split(".")
    if fleet.ledger.redis.getbit(f"{key}:done:{rung}", int(index)):
        return True
    owner = fleet.ledger.redis.hget(f"{key}:owners", batch)
    return owner is not None and f"-{process}@" not in owner


def stopped_at_work(fleet: Fleet, job: str, worker: Worker) -> list[str]:
    """Stop a worker's process while it has batches of a job; return them."""

    def stop_there() -> list[str]:
        worker.process.suspend()
        time.sleep(0.2)  # what it had sent already is counted
        held = claimed_by(fleet, job, worker)
        if not held:
            worker.process.resume()
        return held

    return wait_until(stop_there, 30)
