"""Scores of the language-model head: fair-esm is the oracle on the same random weights."""

import random
from pathlib import Path

import esm
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import ALPHABET, random_fair_esm, save_fair_esm, tokenize
from tests.support.hugging_face import to_hugging_face
from workers.engine import engine as engine_module
from workers.engine.attributes import model_attributes
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model

SPEC = ModelSpec(name="esm2_small", layers=3, dim=64, heads=4)
PERPLEXITY = "pseudo_perplexity_unmasked"
ALL = OutputForm(include=("logits", "entropy", PERPLEXITY), max_residues=1022)
AMINO_ACIDS = [ALPHABET.get_idx(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"]


@pytest.fixture(scope="module")
def oracle() -> esm.ESM2:
    model = random_fair_esm(SPEC)
    # The decoder has the embeddings, of unit variance: logits as large as those of trained weights.
    model.embed_tokens.weight.mul_(0.3)
    return model


@pytest.fixture(scope="module")
def checkpoint(oracle, tmp_path_factory) -> Path:
    return save_fair_esm(oracle, tmp_path_factory.mktemp("weights") / "esm2_small.pt")


@pytest.fixture(scope="module")
def folder(oracle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "hugging_face"
    to_hugging_face(oracle).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def records() -> list[Record]:
    draw = random.Random(1)
    lengths = [1, 40, 300, 7, 2, 120, 64]
    return [
        Record(row, f"id{row}", "".join(draw.choices("LAGVSERTIDPKXB-", k=length)))
        for row, length in enumerate(lengths)
    ]


def engine_of(path: Path | str, precision: Rung = Rung.FP32) -> Engine:
    engine = Engine(load_model(str(path), dtype=DTYPES[precision]))
    engine.pack_tokens = dict.fromkeys(engine.models, 200)
    return engine


def logits_of(oracle: esm.ESM2, record: Record) -> torch.Tensor:
    """fair-esm's own logits of residues ``[L, 33]``."""
    with torch.inference_mode():
        return oracle(tokenize([record.residues]))["logits"][0, 1:-1].double()


def expected_scores(oracle: esm.ESM2, records: list[Record]) -> dict[str, np.ndarray]:
    """Return all scores by their definitions, in FP64 from fair-esm's logits."""
    logits = [logits_of(oracle, record) for record in records]
    entropies, perplexities = [], []
    for of_record, record in zip(logits, records, strict=True):
        p = F.softmax(of_record[:, AMINO_ACIDS], dim=1)
        entropies.append(-(p * p.log()).sum(1))
        ids = tokenize([record.residues])[0, 1:-1]
        likelihoods = F.log_softmax(of_record, dim=1)[torch.arange(len(ids)), ids]
        perplexities.append(float((-likelihoods.mean()).exp()))
    return {
        "logits": torch.cat(logits).numpy(),
        "entropy": torch.cat(entropies).numpy(),
        PERPLEXITY: np.array(perplexities),
    }


@pytest.mark.parametrize("form", ["fair-esm", "Hugging Face"])
def test_in_fp32_scores_are_those_of_fair_esm(oracle, checkpoint, folder, records, form):
    engine = engine_of(checkpoint if form == "fair-esm" else folder)
    found = engine.embed(records, ALL).embeddings
    assert (found.pooled, found.residues) == ({}, None)
    for name, expected in expected_scores(oracle, records).items():
        assert found.scores[name].dtype == np.float32
        assert found.scores[name].shape == expected.shape
        np.testing.assert_allclose(found.scores[name], expected, rtol=2e-5, atol=5e-5)
    assert found.scores["entropy"].max() <= np.log(20) + 1e-6


@pytest.mark.parametrize("rung", [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32])
def test_each_rung_of_an_fp16_model_gives_the_same_scores_nearly(oracle, checkpoint, records, rung):
    """The weights are rounded to FP16; the head is FP32 at each rung."""
    found = engine_of(checkpoint, Rung.FP16).embed(records, ALL, rung=rung).embeddings.scores
    expected = expected_scores(oracle, records)
    assert np.abs(found["logits"] - expected["logits"]).max() < 0.05
    assert np.abs(found["entropy"] - expected["entropy"]).max() < 0.02
    np.testing.assert_allclose(found[PERPLEXITY], expected[PERPLEXITY], rtol=0.01)


def test_scores_do_not_change_vectors_and_need_no_last_layer(checkpoint, records):
    vectors = OutputForm(include=("mean", "per_residue"), layers=(1,), max_residues=1022)
    engine = engine_of(checkpoint)
    plain = engine.embed(records, vectors).embeddings
    both = vectors.model_copy(update={"include": (*vectors.include, *ALL.include)})
    found = engine.embed(records, both).embeddings
    assert np.array_equal(found.pooled["mean"], plain.pooled["mean"])
    assert np.array_equal(found.residues, plain.residues)
    alone = engine.embed(records, ALL).embeddings
    for name, values in alone.scores.items():
        assert np.array_equal(found.scores[name], values)


def test_the_head_is_loaded_when_it_is_first_asked_for_and_once(checkpoint, records, monkeypatch):
    calls = []
    read = engine_module.load_lm_head
    monkeypatch.setattr(
        engine_module, "load_lm_head", lambda loaded: calls.append(1) or read(loaded)
    )
    engine = engine_of(checkpoint)
    engine.embed(records, OutputForm(max_residues=1022))
    assert calls == []
    engine.embed(records, ALL)
    engine.embed(records, ALL)
    assert calls == [1]


def test_of_windows_the_perplexity_is_that_of_the_weighted_mean(oracle, checkpoint, records):
    form = OutputForm(include=(PERPLEXITY,), max_residues=100, overlap=0)
    found = engine_of(checkpoint).embed(records, form).embeddings.scores[PERPLEXITY]
    whole = records[2].residues
    parts = [Record(0, "", whole[start : start + 100]) for start in (0, 100, 200)]
    logs = np.log(expected_scores(oracle, parts)[PERPLEXITY])
    np.testing.assert_allclose(found[2], np.exp(logs.mean()), rtol=1e-5)


def test_a_row_whose_last_layer_is_not_finite_is_left_out_though_its_vectors_are(
    checkpoint, records
):
    """The vectors are of layer 0, which is finite; a rare letter spoils the layers above."""
    engine = engine_of(checkpoint)
    [block] = [engine.loaded.model.blocks[0]]
    block.fc2.bias[0] = torch.inf
    form = ALL.model_copy(update={"include": ("mean", *ALL.include), "layers": (0,)})
    outcome = engine.embed(records, form)
    assert len(outcome.unstable) == len(records)
    assert all(row.seen[Rung.FP32].nan for row in outcome.unstable)
    plain = OutputForm(layers=(0,), max_residues=1022)
    assert engine.embed(records, plain).unstable == ()


def test_a_perplexity_beyond_fp32_is_not_finite_and_other_scores_of_its_row_are(
    checkpoint, records
):
    """The likelihood of any letter but L is exp(-1000)."""
    engine = engine_of(checkpoint)
    engine._lm_head.get().decoder.bias[ALPHABET.get_idx("L")] = 1000.0
    found = engine.embed(records, ALL)
    assert {row.row for row in found.unstable} == {
        record.row for record in records if set(record.residues) != {"L"}
    }
    assert all(row.seen[Rung.FP32].inf == 1 for row in found.unstable)
    entropy = OutputForm(include=("entropy",), max_residues=1022)
    assert engine.embed(records, entropy).unstable == ()


def test_weights_without_a_head_are_refused_in_a_sentence(folder, records, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    kept = {name: t.clone() for name, t in tensors.items() if "lm_head" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    engine = engine_of(tmp_path)
    assert engine.embed(records, OutputForm(max_residues=1022)).unstable == ()
    with pytest.raises(UserError, match=r"no language-model head \(no lm_head.dense.weight\)"):
        engine.embed(records, ALL)


def test_weights_that_were_replaced_meanwhile_are_not_mixed(oracle, records, tmp_path):
    path = save_fair_esm(oracle, tmp_path / "model.pt")
    engine = engine_of(path)
    save_fair_esm(random_fair_esm(SPEC, seed=9), path)
    with pytest.raises(UserError, match="no longer the weights that were loaded"):
        engine.embed(records, ALL)


def test_random_weights_have_a_head_and_dnabert_s_has_none(records):
    found = engine_of("random:esm2_t6_8M_UR50D").embed(records[:2], ALL).embeddings.scores
    assert 0.5 < found["logits"].std() < 2
    with pytest.raises(UserError, match="DNABERT-S has no language-model head"):
        engine_of("random:dnabert_s").embed([Record(0, "d", "ACGTACGT")], ALL)


def test_the_attributes_name_the_columns_of_logits(checkpoint):
    loaded = load_model(str(checkpoint), dtype=torch.float32)
    assert model_attributes(loaded, ALL)["logits_tokens"] == list(ESM2_TOKENS)
    assert tuple(ALPHABET.all_toks[:32]) == (*ESM2_TOKENS[:31], "<null_1>")
    assert "logits_tokens" not in model_attributes(loaded, OutputForm(max_residues=9))
