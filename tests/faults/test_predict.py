"""A prediction whose worker is killed, and in which a frame overflows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.rungs import PRECISION_CODES, Rung
from tests.faults.checks import claimed_by
from tests.support.contigs import classifier_for, write_contigs
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.fixtures import TINY
from tests.support.overflow_dna import DNA_SPEC, add_too_much_at_once_to_dna
from tests.support.processes import run_producer, wait_until
from tests.support.results import load

#: Seconds for a prediction in which the leases of a killed worker must expire.
SECONDS = 240

CONTIGS = 200

#: The contig with a letter for which the DNA's model overflows in FP16, in one of its chunks.
RARE_CONTIG = 45


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory) -> tuple[Path, Path]:
    """Return a model of DNA that overflows in FP16 for other letters than ACGT, and a protein's."""
    weights = random_checkpoint(DNA_SPEC)
    add_too_much_at_once_to_dna(weights)
    folder = tmp_path_factory.mktemp("weights")
    return save_checkpoint(DNA_SPEC, weights, folder / "dnabert"), tiny


@pytest.fixture(scope="module")
def contigs(tmp_path_factory) -> Path:
    path = write_contigs(tmp_path_factory.mktemp("in") / "c.fna", CONTIGS, longest=50_000, seed=4)
    lines = path.read_text().splitlines()
    place = 2 * RARE_CONTIG + 1
    lines[place] = f"{lines[place][:99]}NNN{lines[place][102:]}"  # a whole codon of the frame
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def options(models, tmp_path_factory) -> list[object]:
    dna, proteins = models
    path = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    return [
        *("--classifier", classifier_for(path, DNA_SPEC.dim + TINY.dim, chunk=500)),
        *("--dna-model", dna, "--protein-model", proteins),
        *("--precision", "fp16", "--batch-tokens", 4000),
    ]


@pytest.fixture(scope="module")
def undisturbed(contigs, options, tmp_path_factory) -> Path:
    """Return the folder of a prediction on this machine alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run_producer("predict", contigs, *options, "-o", folder / "calls", "--local")
    assert done.returncode == 0, done.stderr
    return folder / "calls"


def test_a_killed_worker_and_an_overflow_change_no_call(
    fleet, models, contigs, options, undisturbed, tmp_path
):
    dna, proteins = models
    command = [sys.executable, "-m", "producer.cli", "predict", contigs, *options]
    command += ["-o", tmp_path / "calls"]
    folders = [tmp_path / name for name in ("dna", "proteins")]
    for folder in folders:
        folder.mkdir()
    with (
        fleet.running_workers(dna, folders[0], "--precision=fp16", count=2) as [victim, _],
        fleet.running_workers(proteins, folders[1], "--precision=fp16"),
        subprocess.Popen(
            list(map(str, command)), env=dict(fleet.environment), stderr=subprocess.PIPE, text=True
        ) as prediction,
    ):
        wait_until(
            lambda: any(claimed_by(fleet, job, victim) for job in fleet.ledger.jobs.names()), 60
        )
        victim.process.kill()
        _, said = prediction.communicate(timeout=SECONDS)
        assert prediction.returncode == 0, said
    assert_same_calls(tmp_path / "calls", undisturbed)
    assert_every_frame_has_a_row(fleet, tmp_path)


def assert_same_calls(found: Path, expected: Path) -> None:
    names = ["frames.faa", "frames.fna", "prediction_results_highestscore.csv"]
    for name in names:
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    one, other = (pd.read_csv(f / "contigs.tsv", sep="\t", dtype=str) for f in (found, expected))
    assert one.drop(columns="weighted_delta").equals(other.drop(columns="weighted_delta"))
    assert len(one) == CONTIGS
    assert (one["frames_without_score"] == "0").all()
    assert set(one["call"]) > {"none"}
    frames = [pd.read_csv(f / "prediction_results.txt", sep="\t") for f in (found, expected)]
    assert frames[0]["Sequence_ID"].equals(frames[1]["Sequence_ID"])
    assert frames[0]["Prediction"].equals(frames[1]["Prediction"])
    np.testing.assert_allclose(frames[0]["score2"], frames[1]["score2"], atol=1e-5)
    assert frames[0]["score2"].nunique() > len(frames[0]) / 2


def assert_every_frame_has_a_row(fleet, folder: Path) -> None:
    """Check each model's job: all frames, and the one that overflowed at a higher rung."""
    [joint] = [name.name for name in (folder / "store").iterdir() if name.name.endswith("-all")]
    done = fleet.producer("fetch", joint, "-o", folder / "features.h5")
    assert done.returncode == 0, done.stderr
    ids = [line[1:] for line in (folder / "calls/frames.faa").read_text().splitlines()[::2]]
    for model, above in (("dnabert", {f"contig_{RARE_CONTIG}_chunk_1F1"}), ("tiny.pt", set())):
        found = load(folder / "features.h5", group=model)
        names = found["ids"].astype(str)
        assert names.tolist() == ids
        assert found["rows"].tolist() == list(range(len(ids)))
        assert np.isfinite(found["mean"]).all()
        higher = found["precision"] != PRECISION_CODES[Rung.FP16]
        assert set(names[higher]) >= above
        assert higher.any() == bool(above)
