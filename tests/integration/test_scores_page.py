"""Every command and every block of Python in docs/scores.md runs as written, in its order."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.support.fair_esm import ALPHABET, save_contact_regression, save_fair_esm, tokenize
from tests.support.processes import clean_environment, run_producer

PAGE = (ROOT / "docs" / "scores.md").read_text()
PROTEINS = {"P1": "MKTAYIAKQRX", "P2": "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTK", "P3": "G"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, oracle) -> Path:
    """A folder with the outputs of all commands of the page."""
    folder = tmp_path_factory.mktemp("scores")
    weights = save_fair_esm(oracle, tmp_path_factory.mktemp("weights") / "tiny.pt")
    save_contact_regression(oracle, weights)
    fasta = "".join(f">{id_} words\n{protein}\n" for id_, protein in PROTEINS.items())
    (folder / "proteins.fasta").write_text(fasta)
    for line in "".join(blocks("sh")).splitlines():
        program, *words = shlex.split(line)
        assert program == "producer"
        if words[0] == "submit":
            words += ["--model", str(weights), "--gpus", "none"]
        done = run_producer(*words, cwd=folder, environment=clean_environment())
        assert done.returncode == 0, f"{line}: {done.stderr}"
    return folder


def masked_surprise(oracle, tokens: torch.Tensor) -> float:
    """The mean of ``-ln p`` of each residue while it is masked."""
    copies = tokens.repeat(tokens.shape[1] - 2, 1)
    copies[:, 1:-1].fill_diagonal_(ALPHABET.mask_idx)
    with torch.inference_mode():
        logits = oracle(copies)["logits"][:, 1:-1].diagonal(dim1=0, dim2=1).T
    return float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:-1]))


def test_the_file_has_the_scores_of_fair_esm(folder, oracle):
    with h5py.File(folder / "scores.h5") as file:
        assert file.attrs["logits_tokens"].tolist()[4:24] == list("LAGVSERTIDPKQNFYMHWC")
        offsets = file["offsets"][:]
        for row, protein in enumerate(PROTEINS.values()):
            with torch.inference_mode():
                tokens = tokenize([protein])
                expected = oracle(tokens)["logits"][0, 1:-1]
            here = slice(*offsets[row : row + 2])
            np.testing.assert_allclose(file["logits"][here], expected, atol=2e-4)
            surprise = torch.nn.functional.cross_entropy(expected, tokens[0, 1:-1])
            found = np.log(file["pseudo_perplexity_unmasked"][row])
            np.testing.assert_allclose(found, surprise, atol=2e-4)
            found = np.log(file["pseudo_perplexity"][row])
            np.testing.assert_allclose(found, masked_surprise(oracle, tokens), atol=2e-4)
        assert file["entropy"].shape == (offsets[-1],)
        assert file["mean"].shape[0] == len(PROTEINS)
        table = np.genfromtxt(folder / "perplexity.csv", delimiter=",", names=True)
        for name in ("pseudo_perplexity_unmasked", "pseudo_perplexity"):
            assert np.array_equal(table[name].astype(np.float32), file[name][:])
    with np.load(folder / "mean.npz") as arrays:
        assert "mean" in arrays
        assert "logits" not in arrays


def test_the_file_has_the_contacts_of_fair_esm(folder, oracle):
    with h5py.File(folder / "contacts.h5") as file:
        offsets = file["contact_offsets"][:]
        for row, protein in enumerate(PROTEINS.values()):
            with torch.inference_mode():
                expected = oracle.predict_contacts(tokenize([protein]))[0].numpy()
            found = file["contacts"][slice(*offsets[row : row + 2])].reshape(expected.shape)
            np.testing.assert_allclose(found, expected, atol=5e-4)


def test_the_blocks_of_python_print_what_they_should(folder):
    script = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "P1 (11, 33) (11,) (11,)",
        "dict_keys(['P1', 'P2', 'P3'])",
        "(320,) (10, 33) (10,)",
        "(11, 11) float16",
    ]


@pytest.mark.parametrize(("kind", "head"), [("logits", "language-model"), ("contacts", "contact")])
def test_a_job_of_weights_without_a_head_fails_with_a_sentence(
    folder, oracle, tmp_path, kind, head
):
    path = save_fair_esm(oracle, tmp_path / "bare.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path, weights_only=True)
    data["model"] = {name: t for name, t in data["model"].items() if "lm_head" not in name}
    torch.save(data, path)
    words = ["--local", "--model", str(path), "--gpus", "none", "--include", kind]
    done = run_producer(
        *("submit", "proteins.fasta", *words, "-o", str(tmp_path / "e.h5")),
        cwd=folder,
        environment=clean_environment(),
    )
    assert done.returncode != 0
    assert f"these weights have no {head} head" in done.stderr
    assert not (tmp_path / "e.h5").exists()
