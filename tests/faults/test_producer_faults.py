"""Producers that are killed."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults.checks import assert_nothing_was_lost, keeper
from tests.support.processes import run_producer, start_command, wait_until
from tests.support.results import load

#: Seconds for which a killed producer may block others from its job.
STAGING_SECONDS = 75


@pytest.fixture(scope="module")
def short_proteins(tmp_path_factory) -> Path:
    """An input of 400 batches, which take longer to stage and publish than to compute."""
    draw = random.Random(9)
    path = tmp_path_factory.mktemp("input") / "short.fasta"
    path.write_text(
        "".join(f">s{row}\n{''.join(draw.choices('LAGVSE', k=18))}\n" for row in range(2000))
    )
    return path


@pytest.mark.slow
def test_a_submit_killed_at_any_point_and_run_again_leaves_no_gap_and_nothing_twice(
    fleet, redis, tiny, short_proteins, tmp_path
):
    """Six jobs, each killed somewhere between its first key in Redis and its end."""
    draw = random.Random(17)
    done = run_producer(
        *("submit", short_proteins, "--local", "--model", tiny, "-o", "e.h5"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    reference = load(tmp_path / "e.h5")
    common = ("submit", short_proteins, "--model", tiny, "--batch-tokens=100")
    # They differ in a limit that no sequence reaches: the same numbers each time.
    submits = [(*common, f"--max-residues={n}") for n in range(1001, 1008)]
    took = None
    for arguments in submits:
        keys = redis.client.dbsize()
        with Path(os.devnull).open("wb") as nothing:
            process = start_command(
                "producer.cli", *arguments, environment=fleet.environment, output=nothing
            )
        while redis.client.dbsize() == keys:
            time.sleep(0.001)
        began = time.monotonic()
        if took is None:  # the first is not killed
            assert process.wait(60) == 0
            took = time.monotonic() - began
        else:
            time.sleep(draw.uniform(0, took))
            process.kill()
            process.wait()
    jobs = [submitted_again(fleet, arguments) for arguments in submits]
    assert len(set(jobs)) == len(jobs) == len(fleet.ledger.jobs.names())
    with fleet.running_workers(tiny, tmp_path):
        for job in jobs:
            with keeper(fleet):
                assert_nothing_was_lost(fleet, job, reference)


def submitted_again(fleet, arguments) -> str:
    """Return the job's name, once the staging lock of the killed producer has expired."""

    def again() -> str:
        done = fleet.producer(*arguments)
        if done.returncode:
            assert "is being submitted by another producer" in done.stderr
            time.sleep(2)
        return done.stdout.strip()

    return wait_until(again, STAGING_SECONDS)
