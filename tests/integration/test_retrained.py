"""Weights that change under the same path: no file has other weights than those asked for."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.processes import run_producer, wait_until
from tests.support.results import load, oracle_means
from virnucpro_fleet import Fleet

SEQUENCES = {"a": "MKTAYIAKQR", "b": "GAVLIPFMWSTCYNQDEKRH"}

BOUND = 2e-5


@pytest.fixture(scope="module")
def oracles():
    return [random_fair_esm(TINY, seed=seed) for seed in (0, 1)]


@pytest.fixture
def fasta(tmp_path) -> Path:
    path = tmp_path / "p.fasta"
    path.write_text("".join(f">{id_}\n{sequence}\n" for id_, sequence in SEQUENCES.items()))
    return path


def difference(found: np.ndarray, oracle) -> float:
    return float(np.abs(found - oracle_means(oracle, list(SEQUENCES.values()), 2)).max())


def test_a_local_run_after_training_has_the_new_weights(oracles, fasta, tmp_path):
    for number, oracle in enumerate(oracles):
        path = save_fair_esm(oracle, tmp_path / "model.pt")
        done = run_producer(
            *("submit", fasta, "--local", "--model", path, "-o", f"{number}.h5"),
            f"--store={tmp_path / 'store'}",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert difference(load(tmp_path / f"{number}.h5")["mean"], oracle) <= BOUND
        assert ("have changed since this input was submitted" in done.stderr) == (number == 1)


def test_a_fleet_of_this_machine_loads_new_weights(oracles, tmp_path):
    with Fleet.local(gpus="none") as fleet:
        for oracle in oracles:
            path = save_fair_esm(oracle, tmp_path / "model.pt")
            with (
                pytest.warns(UserWarning, match="changed")
                if oracle is oracles[1]
                else nullcontext()
            ):
                job = fleet.submit(SEQUENCES, model=path)
            job.wait(timeout=120)
            assert difference(job.embeddings().mean, oracle) <= BOUND


def test_a_running_worker_of_the_old_weights_computes_nothing_for_the_new(
    fleet, oracles, fasta, tmp_path
):
    path = save_fair_esm(oracles[0], tmp_path / "model.pt")
    with fleet.workers(path, tmp_path) as logs:
        save_fair_esm(oracles[1], path)
        done = fleet.producer("submit", fasta, "--model", path)
        assert "its workers have loaded other weights" in done.stderr
        wait_until(lambda: "other weights" in logs[0].read_text(), 30)
    job = done.stdout.strip()
    assert fleet.ledger.jobs.progress(job).weights is None
    with fleet.workers(path, tmp_path):
        done = fleet.producer("submit", fasta, "--model", path, "-o", tmp_path / "e.h5")
    assert done.returncode == 0, done.stderr
    assert difference(load(tmp_path / "e.h5")["mean"], oracles[1]) <= BOUND
