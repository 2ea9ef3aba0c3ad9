"""DNA end to end: contigs through the producer and a worker, against the FP64 reference."""

import random

import numpy as np
import pytest
import torch

from common.model_specs import DNABERT_S, ModelSpec
from tests.support.dnabert import random_checkpoint, reference, save_checkpoint
from tests.support.processes import run_producer
from tests.support.results import attributes, load
from workers.engine.windows import windows
from workers.models.dnabert_s.tokenizer import DNATokenizer

SPEC = ModelSpec(name="small_dna", layers=2, dim=64, heads=4, family=DNABERT_S)

#: Lengths of fragments as in metagenomes, and one of many windows.
LENGTHS = [500, 1, 300, 9_000, 10_000, 10_001, 31_000, 42, 700]


@pytest.fixture(scope="module")
def weights():
    return random_checkpoint(SPEC)


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    return save_checkpoint(SPEC, weights, tmp_path_factory.mktemp("weights") / "dnabert")


@pytest.fixture(scope="module")
def contigs() -> list[str]:
    draw = random.Random(0)
    found = ["".join(draw.choices("ACGT", k=length)) for length in LENGTHS]
    found[0] = "NNN" + found[0][:200].lower() + found[0][203:]  # as assemblers write them
    return found


@pytest.fixture(scope="module")
def fasta(contigs, tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "contigs.fna"
    path.write_text("".join(f">k{row}\n{contig}\n" for row, contig in enumerate(contigs)))
    return path


def expected_mean(weights, contig: str) -> np.ndarray:
    """The mean over all tokens, [CLS] and [SEP] too; over windows by their tokens."""
    tokenize = DNATokenizer.own()
    sums, count = 0.0, 0
    for start, end in windows(len(contig), 10_000, 1_000):
        tokens = torch.from_numpy(tokenize([contig[start:end].upper()]).ids)
        hidden = reference(weights, tokens, SPEC.heads)[SPEC.layers]
        sums, count = sums + hidden.sum(0), count + len(tokens)
    return (sums / count).numpy()


def test_contigs_of_any_length_have_the_reference_s_embeddings(
    checkpoint, weights, contigs, fasta, tmp_path
):
    output = tmp_path / "contigs.h5"
    done = run_producer(
        "submit", fasta, "--local", "--model", checkpoint, "-o", output, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "61,544 bases to embed" in done.stderr
    assert (
        "2 records longer than 10,000 bases: embedded in windows of 10,000 that overlap by at "
        "least 1,000" in done.stderr
    )
    found = load(output)
    assert found["lengths"].tolist() == found["input_lengths"].tolist() == LENGTHS
    assert set(found["precision"]) == {4}
    expected = np.stack([expected_mean(weights, contig) for contig in contigs])
    np.testing.assert_allclose(found["mean"], expected, atol=2e-5)
    of_file = attributes(output)
    assert of_file["pooling"] == "mean over all tokens, [CLS] and [SEP] among them"
    assert (of_file["window"], of_file["overlap"]) == (10_000, 1_000)


def test_a_fleet_embeds_contigs_with_random_weights_and_no_download(fleet, contigs, tmp_path):
    fasta = tmp_path / "short.fna"
    short = [contig[:1_300] for contig in contigs]  # three windows: this model has its full size
    fasta.write_text("".join(f">k{row}\n{contig}\n" for row, contig in enumerate(short)))
    with fleet.workers("random:dnabert_s", tmp_path):
        done = fleet.producer(
            *("submit", fasta, "--model", "random:dnabert_s", "--max-residues", "600"),
            *("--include", "mean", "bos", "--layers", "-1", "6", "-o", tmp_path / "e.h5"),
        )
    assert done.returncode == 0, done.stderr
    assert "has random weights" in done.stderr
    found = load(tmp_path / "e.h5")
    assert found["mean"].shape == found["bos"].shape == (len(LENGTHS), 2, 768)
    assert np.isfinite(found["mean"]).all()


def test_a_long_contig_is_refused_where_the_user_asks_for_it(fasta, tmp_path):
    done = run_producer(
        *("submit", fasta, "--local", "--model", "random:dnabert_s", "--long", "error"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "record 6 ('k5') has 10,001 bases, more than the limit of 10,000" in done.stderr


def test_a_protein_is_told_apart_from_dna(examples, tmp_path):
    protein = run_producer(
        "submit", examples, "--local", "--model", "random:dnabert_s", cwd=tmp_path
    )
    assert protein.returncode == 2
    assert (
        "of the 25 records with a sequence are proteins: A, C, G, T, U and N are" in protein.stderr
    )
    assert "Give a protein model" in protein.stderr


def test_residues_of_dna_are_refused_as_tokens_are_no_bases(fasta, tmp_path):
    done = run_producer(
        *("submit", fasta, "--local", "--model", "random:dnabert_s", "--long", "truncate"),
        *("--include", "per_residue"),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "DNABERT-S has tokens of several bases" in done.stderr


def test_a_folder_that_only_the_worker_sees_is_found_to_be_dna_by_it(
    fleet, checkpoint, fasta, tmp_path
):
    """The producer checked its letters as amino acids; no embedding is computed."""
    there = tmp_path / "there"
    there.symlink_to(checkpoint)
    with fleet.workers(there, tmp_path):
        there.rename(tmp_path / "elsewhere")
        done = fleet.producer("submit", fasta, "--model", there, "-o", tmp_path / "e.h5")
    assert done.returncode == 1
    assert "The input was read as protein, but" in done.stderr
    assert "Warning: most records have hardly any letters but A, C, G, T, U and N" in done.stderr
