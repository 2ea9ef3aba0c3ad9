"""Every command and every block of Python in docs/virnucpro.md runs as written, in its order."""

import json
from pathlib import Path

import h5py
import pandas as pd
import pytest

from tests.support.contigs import classifier_for, write_contigs
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.overflow_dna import DNA_SPEC
from tests.support.pages import blocks, run_blocks
from tests.support.processes import clean_environment

#: The models of the page, which are not downloaded here, and small ones in their place.
MODELS = {
    "esm2_t36_3B_UR50D": "random:esm2_t6_8M_UR50D",
    "esm2_t33_650M_UR50D": "random:esm2_t6_8M_UR50D",
    "--model dnabert_s": "--model ./dnabert_s",
    "500_model.pth --local": "500_model.safetensors --dna-model ./dnabert_s "
    "--protein-model random:esm2_t6_8M_UR50D --local",
    "train-classifier --positive": "train-classifier --dna-model ./dnabert_s --positive",
    "--local": "--local --gpus none",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what the page's commands read, and what they wrote."""
    folder = tmp_path_factory.mktemp("virnucpro")
    save_checkpoint(DNA_SPEC, random_checkpoint(DNA_SPEC), folder / "dnabert_s")
    classifier_for(folder / "500_model.safetensors", DNA_SPEC.dim + 320, chunk=500)
    for seed, name in enumerate(("contigs", "viral", "others")):
        write_contigs(folder / f"{name}.fna", 20, seed=seed, longest=700)
    found = blocks("virnucpro.md", "sh", "python")
    assert [language for language, _ in found] == ["sh", "sh", "python", "sh"]
    printed = run_blocks(found, folder, clean_environment(), MODELS)
    assert "Wrote calls." in printed[0]
    return folder


def test_all_files_of_a_prediction_are_there(folder):
    names = {path.name for path in (folder / "calls").iterdir()}
    assert names == {
        *("prediction_results.txt", "prediction_results_highestscore.csv", "contigs.tsv"),
        *("frames.faa", "frames.fna", "report.html", "prediction.json"),
    }
    contigs = pd.read_csv(folder / "calls" / "contigs.tsv", sep="\t")
    assert len(contigs) == 20
    assert contigs["ID"].tolist() == [f"contig_{n}" for n in range(20)]
    frames = (folder / "frames.faa").read_text()
    assert frames == (folder / "calls" / "frames.faa").read_text()
    results = pd.read_csv(folder / "calls" / "prediction_results.txt", sep="\t")
    assert results["Sequence_ID"].tolist() == [line[1:] for line in frames.splitlines()[::2]]
    record = json.loads((folder / "calls" / "prediction.json").read_text())
    assert record["classifier"]["chunk"] == 500
    assert sum(n for tiers in record["calls"].values() for n in tiers.values()) == 20


def test_features_and_a_classifier_of_one_s_own_are_there(folder):
    with h5py.File(folder / "features.h5") as file:
        assert len(file) == 2
    report = json.loads((folder / "my_model.json").read_text())
    assert report["held_out"]["contigs"]["virus"] > 0
    assert (folder / "my_model.svg").read_text().startswith("<svg")
    record = json.loads((folder / "my_calls" / "prediction.json").read_text())
    assert record["classifier"]["file"] == "my_model.safetensors"
