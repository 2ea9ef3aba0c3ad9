"""The pages for users of other tools: commands and blocks run as written, and the numbers that the
other tools give with the same weights are those of the pages.
"""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import EsmTokenizer

from tests.support.fair_esm import ALPHABET, tokenize
from tests.support.hugging_face import to_hugging_face
from tests.support.pages import blocks, run_blocks
from tests.support.processes import clean_environment

PROTEINS = {
    "sp|P69905|HBA_HUMAN": "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKK",
    "P1": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
    "P2": "MVLSPADKTNVKAAWGK",
}


def folder_with(proteins: dict[str, str], folder: Path) -> Path:
    fasta = "".join(f">{id_} words of it\n{protein}\n" for id_, protein in proteins.items())
    (folder / "proteins.fasta").write_text(fasta)
    return folder


def test_code_for_esm_extract_reads_the_folder_and_finds_its_numbers(tiny, oracle, tmp_path):
    """Its numbers: FP32, batches of fair-esm's converter, means of residues."""
    folder = folder_with(PROTEINS, tmp_path)
    replace = {
        "esm2_t33_650M_UR50D": f"{tiny} --gpus none",
        "0 32 33": "0 1 2",
        "layer = 33": "layer = 2",
    }
    found = blocks("from-esm-extract.md", "sh", "python")
    _, code, _, after_fetch = run_blocks(found, folder, clean_environment(), replace)
    assert code == "torch.Size([3, 64]) torch.Size([64])\n"
    assert after_fetch == "(3, 3, 64)\n(33, 3, 64)\n"

    with torch.inference_mode():
        expected = oracle(tokenize(list(PROTEINS.values())), repr_layers=[0, 1, 2])
    for row, (id_, protein) in enumerate(PROTEINS.items()):
        one = torch.load(folder / "out" / f"{id_} words of it.pt", weights_only=True)
        assert list(one["representations"]) == [0, 1, 2]
        for layer, tokens in expected["representations"].items():
            residues = tokens[row, 1 : len(protein) + 1]
            kept = one["representations"][layer]
            torch.testing.assert_close(kept, residues, atol=5e-5, rtol=1e-4)
            mean = one["mean_representations"][layer]
            torch.testing.assert_close(mean, residues.mean(0), atol=2e-5, rtol=1e-4)
            bos = one["bos_representations"][layer]
            torch.testing.assert_close(bos, tokens[row, 0], atol=5e-5, rtol=1e-4)


def test_code_for_bio_embeddings_reads_the_files_and_finds_every_protein(tiny, tmp_path):
    folder = folder_with(PROTEINS, tmp_path)
    replace = {"esm2_t33_650M_UR50D": f"{tiny} --gpus none"}
    found = blocks("from-bio-embeddings.md", "sh", "python")
    _, code, _ = run_blocks(found, folder, clean_environment(), replace)
    assert code == "P1 (64,)\n(62, 64)\n"

    mapping = pd.read_csv(folder / "mapping_file.csv", index_col=0)["original_id"]
    assert set(mapping) == set(PROTEINS)
    with (
        h5py.File(folder / "reduced_embeddings_file.h5") as means,
        h5py.File(folder / "embeddings_file.h5") as residues,
    ):
        for name, original in mapping.items():  # as its stages look proteins up
            assert means[str(name)].attrs["original_id"] == original
            np.testing.assert_allclose(means[name], residues[name][:].mean(0), atol=1e-3)


@pytest.fixture(scope="module")
def published(tmp_path_factory, oracle) -> Path:
    """A folder as ``save_pretrained`` leaves it: model and tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    to_hugging_face(oracle).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ALPHABET.all_toks))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_a_script_with_transformers_has_the_same_numbers_without_special_tokens(
    published, tmp_path
):
    folder = folder_with({id_: PROTEINS[id_] for id_ in ("P1", "P2")}, tmp_path)
    replace = {
        "--model facebook/esm2_t33_650M_UR50D": f"--model {published} --gpus none",
        "facebook/esm2_t33_650M_UR50D": str(published),
    }
    found = blocks("from-transformers.md", "sh", "python")
    _, script, embedder = run_blocks(found, folder, clean_environment(), replace)
    differences = dict(line.rsplit(" ", 1) for line in script.splitlines())
    assert list(differences) == ["usual mask", "residues", "<cls>"]
    assert float(differences["usual mask"]) > 0.01
    assert float(differences["residues"]) < 5e-5
    assert float(differences["<cls>"]) < 5e-5
    assert embedder == "(2, 64) (64,) torch.Size([2, 64])\n"
