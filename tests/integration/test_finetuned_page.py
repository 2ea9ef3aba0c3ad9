"""Every command and every block of Python in docs/finetuned.md runs as written, in its order."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from transformers import EsmForMaskedLM, EsmForSequenceClassification, EsmForTokenClassification

from tests.conftest import ROOT
from tests.support.adapters import adapted, hidden_of, logits_of, save_adapter, save_model
from tests.support.processes import clean_environment, run_producer

PAGE = (ROOT / "docs" / "finetuned.md").read_text()
PROTEINS = {"P1": "MKTAYIAKQRX", "P2": "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTK", "P3": "G"}
LABELS = {"id2label": {0: "host", 1: "virus"}, "label2id": {"host": 0, "virus": 1}}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def submit(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    words = (*words, "--gpus", "none")
    return run_producer("submit", *words, cwd=folder, environment=clean_environment())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the models of the page, and the outputs of all its commands."""
    folder = tmp_path_factory.mktemp("finetuned")
    fasta = "".join(f">{id_} words\n{protein}\n" for id_, protein in PROTEINS.items())
    (folder / "proteins.fasta").write_text(fasta)
    base = save_model(folder / "esm2")
    save_adapter(folder / "adapter", base, target_modules=["query", "value"])
    save_model(folder / "classifier", EsmForSequenceClassification, **LABELS)
    save_model(folder / "residues", EsmForTokenClassification, **LABELS)
    for line in "".join(blocks("sh")).splitlines():
        program, *words = shlex.split(line)
        if program == "ln":
            subprocess.run([program, *words], cwd=folder, check=True)
            continue
        assert (program, words[0]) == ("producer", "submit")
        done = submit(folder, *words[1:])
        assert done.returncode == 0, f"{line}: {done.stderr}"
    return folder


def test_the_file_of_an_adapter_has_the_vectors_of_peft_and_says_where_they_come_from(folder):
    oracle = adapted(folder / "adapter", folder / "esm2")
    with h5py.File(folder / "adapted.h5") as file:
        for row, protein in enumerate(PROTEINS.values()):
            expected = hidden_of(oracle, protein)[1:-1].mean(0)
            np.testing.assert_allclose(file["mean"][row], expected, atol=1e-5)
        found = dict(file.attrs)
    assert found["model"] == str(folder / "adapter")
    assert found["base_model"] == str(folder / "esm2")
    assert len({found["weights"], found["base_weights"], found["adapter_weights"]}) == 3


def test_the_file_of_a_classifier_has_the_logits_of_transformers(folder):
    oracle = EsmForSequenceClassification.from_pretrained(folder / "classifier").eval()
    expected = torch.stack([logits_of(oracle, protein) for protein in PROTEINS.values()])
    with h5py.File(folder / "classes.h5") as file:
        np.testing.assert_allclose(file["class_logits"], expected, atol=2e-5)
        assert file.attrs["class_labels"].tolist() == ["host", "virus"]
        assert "mean" in file


def test_classes_of_residues_are_a_dataset_like_that_of_vectors(folder):
    words = ("--local", "--model", "./residues", "--include", "class_logits,mean", "-o", "r.h5")
    done = submit(folder, "proteins.fasta", *words)
    assert done.returncode == 0, done.stderr
    oracle = EsmForTokenClassification.from_pretrained(folder / "residues").eval()
    expected = [logits_of(oracle, protein)[1:-1] for protein in PROTEINS.values()]
    with h5py.File(folder / "r.h5") as file:
        np.testing.assert_allclose(file["residue_class_logits"], torch.cat(expected), atol=2e-5)
        assert file["offsets"][-1] == len(file["residue_class_logits"])
    exported = run_producer(
        *("export", "r.h5", "-o", "again.h5", "--include", "class_logits", "mean"),
        cwd=folder,
        environment=clean_environment(),
    )
    assert exported.returncode == 0, exported.stderr
    with h5py.File(folder / "r.h5") as first, h5py.File(folder / "again.h5") as second:
        name = "residue_class_logits"
        assert np.array_equal(first[name], second[name])
        assert second.attrs["class_labels"].tolist() == ["host", "virus"]


def test_a_model_without_a_head_is_refused_when_it_is_submitted(folder):
    words = ("--local", "--model", "./esm2", "--include", "class_logits", "-o", "none.h5")
    done = submit(folder, "proteins.fasta", *words)
    assert done.returncode == 2
    assert "esm2 has no classification head" in done.stderr
    assert not (folder / "none.h5").exists()


def test_the_blocks_of_python_print_what_they_should(folder):
    first, *rest = blocks("python")
    outputs = []
    for script in (first, "\n".join(rest)):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs += done.stdout.splitlines()
    assert outputs == ["['host', 'virus'] True (3, 2)", "(64,) (10, 2)"]
    merged = EsmForMaskedLM.from_pretrained(folder / "merged").eval()
    oracle = adapted(folder / "adapter", folder / "esm2")
    expected = hidden_of(oracle, PROTEINS["P1"])
    np.testing.assert_allclose(hidden_of(merged, PROTEINS["P1"]), expected, atol=1e-5)
