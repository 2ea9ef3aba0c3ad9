"""``producer submit --local``: one command from FASTA to HDF5, without a running fleet."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from common.rungs import PRECISION_CODES
from tests.support.processes import clean_environment, run_producer, wait_until
from tests.support.results import attributes, load, oracle_means, oracle_residues, read_fasta

BOUND = 2e-5


def test_the_example_comes_out_as_fair_esm_has_it_in_input_order(examples, tiny, oracle, tmp_path):
    done = run_producer("submit", examples, "--local", "--model", tiny, "-o", "e.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = read_fasta(examples)
    found = load(tmp_path / "e.h5")
    kept = [sequence[:1022] for _, sequence in records]
    assert [text.decode() for text in found["headers"]] == [header for header, _ in records]
    assert [text.decode() for text in found["ids"]] == [h.split()[0] for h, _ in records]
    assert found["rows"].tolist() == list(range(len(records)))
    assert found["lengths"].tolist() == [len(sequence) for sequence in kept]
    assert found["input_lengths"].tolist() == [len(sequence) for _, sequence in records]
    assert np.abs(found["mean"] - oracle_means(oracle, kept, 2)).max() <= BOUND
    assert "3 records longer than 1,022 residues" in done.stderr


def test_nothing_is_left_but_the_file(examples, tiny, tmp_path):
    run_producer("submit", examples, "--local", "--model", tiny, "-o", "e.h5", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]
    assert not processes_of(tmp_path)


def test_residues_bos_and_several_layers_are_as_fair_esm_has_them(tiny, oracle, tmp_path):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nGAVLIPFMWSTCYNQDEKRH\n")
    form = ["--include", "mean", "per_residue", "bos", "--layers", "1", "-1"]
    done = run_producer(
        *("submit", fasta, "--local", "--model", tiny, "-o", "e.h5"),
        *form,
        "--residue-dtype=float32",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = load(tmp_path / "e.h5")
    assert found["offsets"].tolist() == [0, 10, 30]
    assert found["residues"].shape == (30, 2, 64)
    assert found["bos"].shape == found["mean"].shape == (2, 2, 64)
    assert attributes(tmp_path / "e.h5")["layers"].tolist() == [1, 2]
    for place, layer in enumerate((1, 2)):
        expected = oracle_residues(oracle, "GAVLIPFMWSTCYNQDEKRH", layer)
        assert np.abs(found["residues"][10:30, place] - expected).max() <= BOUND
        assert np.abs(found["mean"][1, place] - expected.mean(0)).max() <= BOUND


def test_random_weights_are_called_meaningless_on_screen_and_in_the_file(examples, tmp_path):
    model = "random:esm2_t6_8M_UR50D"
    done = run_producer("submit", examples, "--local", "--model", model, "-o", "e.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "embeddings are meaningless" in done.stderr
    assert "mean nothing" in attributes(tmp_path / "e.h5")["warning"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_a_stop_is_clean_and_the_same_command_goes_on(some_disprot, tiny, tmp_path, number):
    command = submit_slowly(some_disprot, tiny)
    process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stderr=-1, text=True)
    wait_until(lambda: shards(tmp_path), 90)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "finished. To resume: producer resume disprot_proteins-" in message
    assert "Traceback" not in message
    assert not processes_of(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    again = run_producer(*command[3:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "resuming job" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written  # none computed twice
    assert load(tmp_path / "e.h5")["rows"].tolist() == list(range(400))


def test_nothing_survives_a_producer_that_is_killed(some_disprot, tiny, tmp_path):
    process = subprocess.Popen(
        submit_slowly(some_disprot, tiny), cwd=tmp_path, env=clean_environment()
    )
    wait_until(lambda: shards(tmp_path), 90)
    process.kill()
    process.wait()
    wait_until(lambda: not processes_of(tmp_path), 60)


def test_a_second_run_for_the_same_file_is_refused_and_the_first_goes_on(
    some_disprot, tiny, tmp_path
):
    first = subprocess.Popen(
        submit_slowly(some_disprot, tiny), cwd=tmp_path, env=clean_environment()
    )
    wait_until(lambda: shards(tmp_path), 90)
    second = run_producer(*submit_slowly(some_disprot, tiny)[3:], cwd=tmp_path)
    assert second.returncode == 2
    assert "Another run works in e.h5.parts" in second.stderr
    assert first.wait(120) == 0
    assert len(load(tmp_path / "e.h5")["rows"]) == 400


def submit_slowly(fasta: Path, model: Path) -> list[str]:
    """A job of many small batches, so that it can be stopped in the middle."""
    options = ["--model", str(model), "-o", "e.h5", "--store", "store", "--batch-tokens", "1500"]
    return [sys.executable, "-m", "producer.cli", "submit", str(fasta), "--local", *options]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("store/*/output/*.h5"))


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the live processes that were started from ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("disable", "precision", "bound"),
    [({}, "bf16", 0.1), ({"VIRNUCPRO_DISABLE_FP16": "1"}, "fp32", BOUND)],
    ids=["as_asked", "disabled"],
)
def test_bf16_is_computed_if_asked_for_unless_half_precision_is_disabled(
    examples, tiny, oracle, tmp_path, disable, precision, bound
):
    done = run_producer(
        *("submit", examples, "--local", "--model", tiny, "--precision", "bf16", "-o", "e.h5"),
        environment=clean_environment(**disable),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = load(tmp_path / "e.h5")
    assert set(found["precision"]) == {PRECISION_CODES[precision]}
    kept = [sequence[:1022] for _, sequence in read_fasta(examples)]
    difference = np.abs(found["mean"] - oracle_means(oracle, kept, 2)).max()
    assert difference <= bound
    # What was computed in BF16 cannot be as close as FP32 is: the numbers show which it was.
    assert (difference > BOUND) == (precision == "bf16")
