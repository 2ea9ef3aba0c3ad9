"""``worker bench`` as a user runs it, on a CPU with a tiny model."""

import json
import subprocess
import sys

import pytest

from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_fair_esm(random_fair_esm(TINY), tmp_path_factory.mktemp("weights") / "tiny.pt"))


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers.cli", "bench", "--gpus=none", "--seconds=0.5"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


def test_a_run_measures_the_model_and_the_worker_and_draws_what_ran_when(tiny, tmp_path):
    trace = tmp_path / "trace.json"
    done = bench("--model", tiny, "--per-residue", "--json", "--trace", str(trace))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["precision"], found["gpus"], found["per_residue"]) == ("fp32", 0, True)
    assert len(found["packs"]) == 3
    assert all(speed > 0 for speed in [*found["packs"].values(), found["worker"]])
    assert 0 < found["busy"] <= 1
    stages = {event["name"] for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"claim", "fetch", "tokenise", "launch", "assemble", "write", "complete"} <= stages


def test_a_worker_that_cannot_start_is_reported_with_its_reason(tmp_path):
    done = bench("--model", str(tmp_path / "missing.pt"))
    assert done.returncode == 2
    assert "missing.pt: no such folder or file with weights" in done.stderr


@pytest.mark.parametrize("option", ["--store", "--trace"])
def test_a_folder_that_is_not_there_is_an_error_of_the_user(option, tmp_path):
    done = bench("--model=esm2_t6_8M_UR50D", option, str(tmp_path / "missing" / "there"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"worker: {option} {tmp_path}/missing/there: ")
