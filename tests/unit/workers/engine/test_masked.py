"""The exact pseudo-perplexity: fair-esm, masked residue by residue, is the oracle."""

import random
from pathlib import Path

import esm
import numpy as np
import pytest
import torch

from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import ALPHABET, random_fair_esm, save_fair_esm, tokenize
from workers.engine.engine import DTYPES, Engine
from workers.engine.flight import PackDone
from workers.engine.masked import MASK, masked_packs
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.loading import load_model

SPEC = ModelSpec(name="esm2_small", layers=3, dim=64, heads=4)
UNMASKED, MASKED = "pseudo_perplexity_unmasked", "pseudo_perplexity"
FORM = OutputForm(include=(MASKED,), max_residues=1022)


@pytest.fixture(scope="module")
def oracle() -> esm.ESM2:
    model = random_fair_esm(SPEC)
    model.embed_tokens.weight.mul_(0.3)
    return model


@pytest.fixture(scope="module")
def checkpoint(oracle, tmp_path_factory) -> Path:
    return save_fair_esm(oracle, tmp_path_factory.mktemp("weights") / "esm2_small.pt")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    draw = random.Random(1)
    lengths = [1, 40, 90, 7, 2, 31]
    return [
        Record(row, f"id{row}", "".join(draw.choices("LAGVSERTIDPKXB-", k=length)))
        for row, length in enumerate(lengths)
    ]


def engine_of(path: Path | str, precision: Rung = Rung.FP32) -> Engine:
    engine = Engine(load_model(str(path), dtype=DTYPES[precision]))
    engine.pack_tokens = dict.fromkeys(engine.models, 500)
    return engine


def surprise_of(oracle: esm.ESM2, residues: str) -> float:
    """The mean of ``-ln p`` of each residue while it is masked, by fair-esm."""
    surprise = []
    tokens = tokenize([residues])
    for position in range(1, len(residues) + 1):
        masked = tokens.clone()
        masked[0, position] = ALPHABET.mask_idx
        with torch.inference_mode():
            logits = oracle(masked)["logits"][0, position].double()
        surprise.append(-float(logits.log_softmax(0)[tokens[0, position]]))
    return float(np.mean(surprise))


@pytest.fixture(scope="module")
def expected(oracle, records) -> np.ndarray:
    return np.exp([surprise_of(oracle, record.residues) for record in records])


def test_in_fp32_it_is_that_of_fair_esm_masked_one_by_one(checkpoint, records, expected):
    found = engine_of(checkpoint).embed(records, FORM).embeddings
    assert set(found.scores) == {MASKED}
    assert found.scores[MASKED].dtype == np.float32
    np.testing.assert_allclose(found.scores[MASKED], expected, rtol=5e-5)


@pytest.mark.parametrize("rung", [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32])
def test_each_rung_of_an_fp16_model_gives_nearly_the_same(checkpoint, records, expected, rung):
    found = engine_of(checkpoint, Rung.FP16).embed(records, FORM, rung=rung).embeddings
    np.testing.assert_allclose(found.scores[MASKED], expected, rtol=0.01)


def test_with_it_vectors_and_other_scores_stay_as_they_are(checkpoint, records, expected):
    include = ("mean", "per_residue", "logits", UNMASKED)
    plain = OutputForm(include=include, layers=(1,), max_residues=1022)
    engine = engine_of(checkpoint)
    without = engine.embed(records, plain).embeddings
    form = plain.model_copy(update={"include": (*include, MASKED)})
    found = engine.embed(records, form).embeddings
    assert np.array_equal(found.pooled["mean"], without.pooled["mean"])
    assert np.array_equal(found.residues, without.residues)
    for name, values in without.scores.items():
        assert np.array_equal(found.scores[name], values)
    np.testing.assert_allclose(found.scores[MASKED], expected, rtol=5e-5)


def test_of_windows_it_is_that_of_the_weighted_mean(oracle, checkpoint, records):
    form = OutputForm(include=(MASKED,), max_residues=30, overlap=0)
    found = engine_of(checkpoint).embed(records, form).embeddings.scores[MASKED]
    parts = [records[2].residues[start : start + 30] for start in (0, 30, 60)]
    mean = np.mean([surprise_of(oracle, part) for part in parts])
    np.testing.assert_allclose(found[2], np.exp(mean), rtol=5e-5)


def test_packs_have_each_copy_once_and_no_more_tokens_than_fit():
    tokens = ESM2_TOKENIZER(["MKTAYIAK", "G", "LLLLL", "AC"])
    found = {}
    for pack in masked_packs(tokens, [0, 1, 3], 25):
        assert len(pack.ids) <= 25
        assert pack.cu_seqlens[-1] == len(pack.ids)
        for i, source in enumerate(pack.sources.tolist()):
            start, end = pack.cu_seqlens[i : i + 2]
            place = int(pack.masked[i] - start)
            copy = pack.ids[start:end].copy()
            assert copy[place] == MASK
            copy[place] = pack.observed[i]
            first, last = tokens.cu_seqlens[source : source + 2]
            assert np.array_equal(copy, tokens.ids[first:last])
            assert (source, place) not in found
            found[source, place] = True
    assert set(found) == {(s, p) for s, n in ((0, 8), (1, 1), (3, 2)) for p in range(1, n + 1)}


def test_a_copy_larger_than_the_budget_is_a_pack_of_its_own():
    tokens = ESM2_TOKENIZER(["MKTAY"])
    assert [len(pack.ids) for pack in masked_packs(tokens, [0], 3)] == [7] * 5


def test_all_tokens_are_counted_as_the_producer_counts_them(checkpoint, records):
    done: list[PackDone] = []
    outcome = engine_of(checkpoint).embed(records, FORM, on_pack=done.append)
    tokens = sum((n + 1) * (n + 2) for n in (len(record.residues) for record in records))
    assert outcome.tokens == done[-1].batch_tokens == done[-1].batch_done == tokens
    assert sum(pack.tokens for pack in done) == tokens
    assert [pack.batch_done for pack in done] == sorted(pack.batch_done for pack in done)


def test_what_is_not_finite_only_under_a_mask_is_left_out(checkpoint, records):
    """The vectors are finite; the embedding of the mask alone is not."""
    engine = engine_of(checkpoint)
    engine.loaded.model.embed_tokens.weight[MASK] = torch.inf
    form = FORM.model_copy(update={"include": ("mean", MASKED)})
    outcome = engine.embed(records, form)
    assert [row.row for row in outcome.unstable] == [record.row for record in records]
    assert [row.seen[Rung.FP32].nan for row in outcome.unstable] == [
        len(record.residues) for record in records
    ]
    assert engine.embed(records, OutputForm(max_residues=1022)).unstable == ()


def test_one_beyond_fp32_is_not_finite(checkpoint, records):
    engine = engine_of(checkpoint)
    engine._lm_head.get().decoder.bias[ALPHABET.get_idx("L")] = 1000.0
    outcome = engine.embed(records, FORM)
    assert {row.row for row in outcome.unstable} == {
        record.row for record in records if set(record.residues) != {"L"}
    }
    assert all(row.seen[Rung.FP32].inf == 1 for row in outcome.unstable)


def test_rows_that_are_not_finite_are_not_masked(checkpoint, records):
    engine = engine_of(checkpoint)
    engine.loaded.model.embed_tokens.weight[ALPHABET.get_idx("X")] = torch.nan
    done: list[PackDone] = []
    outcome = engine.embed(records, FORM, on_pack=done.append)
    bad = {record.row for record in records if "X" in record.residues}
    assert bad
    assert {row.row for row in outcome.unstable} == bad
    good = [len(record.residues) for record in records if record.row not in bad]
    every = sum(len(record.residues) + 2 for record in records)
    assert sum(pack.tokens for pack in done) == every + sum(n * (n + 2) for n in good)


def test_memory_that_runs_out_starts_the_copies_again_with_smaller_packs(
    checkpoint, records, expected, monkeypatch
):
    engine = engine_of(checkpoint)
    engine.pack_tokens = dict.fromkeys(engine.models, 4096)
    model = engine.models[Rung.FP32]
    forward = type(model).forward_packed
    refused = []

    def limited(self, ids, *rest):
        if len(ids) > 2100:
            refused.append(len(ids))
            raise torch.OutOfMemoryError("no more")
        return forward(self, ids, *rest)

    monkeypatch.setattr(type(model), "forward_packed", limited)
    done: list[PackDone] = []
    found = engine.embed(records, FORM, on_pack=done.append).embeddings.scores[MASKED]
    np.testing.assert_allclose(found, expected, rtol=5e-5)
    assert refused
    assert done[-1].batch_done == done[-1].batch_tokens
