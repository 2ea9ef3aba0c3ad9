"""Two versions in one fleet, as during a rolling upgrade, in whichever order they are replaced."""

import random
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.rungs import PRECISION_CODES, Rung
from tests.faults.checks import keeper, progress_of, stopped_at_work, wait_for_batches
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.overflow import RARE, overflow_a_hidden_unit
from tests.support.previous import PREVIOUS, ROOT, checkout_previous
from tests.support.processes import (
    START_SECONDS,
    Fleet,
    is_ready,
    running_worker,
    wait_until,
)
from tests.support.results import load, oracle_means

#: Rows that overflow at two rungs, so that each job climbs the whole ladder.
BAD_ROWS = (0, 17, 18, 111, 250, 299)

OLD, NEW = "old", "new"


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code of the version before."""
    folder = checkout_previous(tmp_path_factory.mktemp("previous"))
    if folder is None:
        pytest.skip(f"needs the history up to {PREVIOUS}")
    return folder


@pytest.fixture
def versions(fleet: Fleet, previous: Path) -> dict[str, Fleet]:
    """The fleet as the processes of each version see it."""
    found = {}
    for name, code in {OLD: previous, NEW: ROOT}.items():
        # Without the current folder, which would come first.
        variables = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
        found[name] = replace(fleet, environment={**fleet.environment, **variables})
        where = [sys.executable, "-c", "import common, sys; sys.stdout.write(common.__file__)"]
        imported = subprocess.run(
            where, env=found[name].environment, capture_output=True, text=True, check=True
        )
        assert Path(imported.stdout).is_relative_to(code)
    return found


@pytest.fixture(scope="module")
def proteins() -> list[str]:
    draw = random.Random(3)
    found = ["".join(draw.choices("LAGVSERTIDPKQNFY", k=draw.randint(5, 60))) for _ in range(300)]
    return [p[:2] + RARE + p[3:] if row in BAD_ROWS else p for row, p in enumerate(found)]


@pytest.fixture(scope="module")
def fasta(proteins: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "proteins.fasta"
    path.write_text("".join(f">p{row}\n{protein}\n" for row, protein in enumerate(proteins)))
    return path


def command(fleet: Fleet, *arguments: object) -> str:
    """Run ``producer`` in a process of its own; return what it prints."""
    done = fleet.producer(*arguments, stdin=b"")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("producer", "keeping", "working"),
    [
        (NEW, [NEW, NEW], [OLD, OLD]),
        (OLD, [OLD, OLD], [NEW, NEW]),
        (NEW, [OLD, NEW], [OLD, NEW]),
        (OLD, [NEW, OLD], [NEW, OLD]),
    ],
)
def test_two_versions_finish_a_job_together(
    versions, redis, producer, keeping, working, fasta, proteins, tmp_path
):
    """The job is cancelled and submitted again by the other version, and goes up the whole ladder.

    Redis is emptied, so that a keeper counts what the workers' shards say; that keeper is succeeded
    by the second one, and a worker is killed.
    """
    oracle = random_fair_esm(TINY)
    overflow_a_hidden_unit(oracle)
    model = save_fair_esm(oracle, tmp_path / "overflowing.pt")
    mine, other = versions[producer], versions[{OLD: NEW, NEW: OLD}[producer]]
    submit = ("submit", fasta, "--model", model, "--batch-tokens=200")

    job = command(mine, *submit)
    command(other, "cancel", job)
    command(mine, "resume", job)
    assert command(other, *submit) == job
    with ExitStack() as stack:
        acting = stack.enter_context(ExitStack())
        acting.enter_context(keeper(versions[keeping[0]]))
        first, _ = [
            stack.enter_context(
                running_worker(
                    model,
                    tmp_path / f"{number}-{version}.log",
                    versions[version].environment,
                    "--precision=fp16",
                )
            )
            for number, version in enumerate(working)
        ]
        wait_until(lambda: sum(map(is_ready, mine.ledger.workers.all())) == 2, START_SECONDS)
        stack.enter_context(keeper(versions[keeping[1]]))
        wait_for_batches(mine, job, 5)
        redis.client.flushall()
        wait_until(lambda: mine.ledger.jobs.progress(job), 60)
        wait_for_batches(mine, job, 5)
        acting.close()
        stopped_at_work(mine, job, first)
        first.kill()
        wait_until(lambda: progress_of(mine, job).finished, 120)

    progress = progress_of(mine, job)
    assert progress.batches_done == progress.batches
    assert progress.leases_lost >= 1
    assert (progress.rows_done, progress.rows_quarantined) == (len(proteins), 0)
    assert progress.rows_by_precision == {"fp16": 294, "fp32": 6}
    found = []
    for number, fleet in enumerate(versions.values()):
        assert job in command(fleet, "jobs")
        assert "finished" in command(fleet, "status", job)
        command(fleet, "verify", job)
        command(fleet, "fetch", job, "-o", tmp_path / f"{number}.h5")
        found.append(load(tmp_path / f"{number}.h5"))
    for name, values in found[0].items():
        assert np.array_equal(values, found[1][name]), name
    assert found[0]["rows"].tolist() == list(range(len(proteins)))
    codes = [PRECISION_CODES[Rung.FP32 if row in BAD_ROWS else Rung.FP16] for row in range(300)]
    assert found[0]["precision"].tolist() == codes
    assert_close(found[0]["mean"], oracle_means(oracle, proteins, TINY.layers))


def assert_close(found, expected) -> None:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((found * expected).sum(1) / norms).min() > 0.999
