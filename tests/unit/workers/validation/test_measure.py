"""Measuring: padded batches with every sequence once, and the verdict."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.model_source import ModelSource
from common.model_specs import DNABERT_S, ESM2, ModelSpec
from common.rungs import Rung
from workers.models.tokens import Tokens
from workers.validation import sets
from workers.validation.judge import judge
from workers.validation.measure import Measured, measure, pad, split_into_rectangles, starts_of
from workers.validation.sets import make_sets

SOURCE = ModelSource("random:esm2_t6_8M_UR50D")

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(lengths, st.integers(1, 200))
def test_rectangles_hold_every_sequence_once_and_keep_to_the_budget(lengths, budget):
    rectangles = list(split_into_rectangles(lengths, budget))
    assert sorted(np.concatenate(rectangles)) == list(range(len(lengths)))
    for rows in rectangles:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= budget


@given(lengths)
def test_padding_keeps_every_token_in_its_place(lengths):
    ids = np.arange(1, sum(lengths) + 1)
    tokens = Tokens(ids, starts_of(np.array(lengths, dtype=np.int32)))
    rows = np.arange(len(lengths))[::-1]
    padded, real = pad(tokens, rows)
    assert padded.shape == real.shape == (len(lengths), max(lengths))
    for row, line, is_real in zip(rows, padded, real, strict=True):
        start, end = tokens.cu_seqlens[row : row + 2]
        assert line[is_real].tolist() == ids[start:end].tolist()
        assert is_real[: end - start].all()


@pytest.mark.parametrize("name", ["random:esm2_t6_8M_UR50D", "random:dnabert_s"])
def test_both_layouts_give_the_same_in_fp32_whatever_tf32_was_set_to(monkeypatch, name):
    monkeypatch.setattr(sets, "RANGES", {"short": (1, 30), "mixed": (2, 70)})
    torch.set_float32_matmul_precision("medium")
    try:
        measured = measure(ModelSource(name), Rung.FP32, "cpu", 2)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    for each in measured.sets:
        assert measured.packed[each.name].shape == (2, measured.spec.dim)
        assert measured.packed[each.name].dtype == np.float32
        np.testing.assert_allclose(
            measured.packed[each.name], measured.padded[each.name], rtol=1e-3, atol=1e-4
        )


def models_in_memory() -> int:
    gc.collect()
    return sum(type(each) is torch.nn.Embedding for each in gc.get_objects())


def test_a_model_is_gone_once_it_was_measured(monkeypatch):
    monkeypatch.setattr(sets, "RANGES", {"mixed": (1, 30)})
    before = models_in_memory()
    measure(SOURCE, Rung.BF16, "cpu", 2)
    assert models_in_memory() == before


# --- the verdict --------------------------------------------------------------------------------


def made_up(family=ESM2) -> Measured:
    """FP32 embeddings that are the same in both layouts."""
    generator = np.random.default_rng(0)
    made = make_sets(family, 3)
    vectors = {each.name: generator.normal(0, 1, (3, 64)).astype(np.float32) for each in made}
    spec = ModelSpec(name="made-up", layers=1, dim=64, heads=1, family=family)
    return Measured(spec, "0" * 16, Rung.FP32, made, vectors, vectors)


def test_what_is_the_same_everywhere_passes():
    reference = made_up()
    found = judge(SOURCE, SOURCE, "GPU", reference, replace(reference, precision=Rung.FP16))
    assert found.passed
    assert found.failures == ()
    assert found.random_weights
    assert (found.unit, found.weights, found.precision) == ("residues", None, "fp16")
    assert all(each.passed for each in found.comparisons)


def spoiled(vectors, name):
    return {**vectors, name: -vectors[name]}


@pytest.mark.parametrize("precision", ["half", "fp32"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("name", ["short", "mixed"])
def test_one_set_in_one_way_of_computing_is_enough_to_fail(precision, layout, name):
    good = made_up()
    bad = replace(good, **{layout: spoiled(getattr(good, layout), name)})
    half = replace(bad if precision == "half" else good, precision=Rung.FP16)
    reference = bad if precision == "fp32" else good
    found = judge(SOURCE, SOURCE, "GPU", reference, half)
    assert not found.passed
    assert "cosine_min" in found.failures
    failed = {(each.measured, each.reference) for each in found.comparisons if not each.passed}
    rung = "fp16" if precision == "half" else "fp32"
    assert failed
    assert all(f"{rung} {layout}" in pair for pair in failed)
    assert {each.set for each in found.comparisons if not each.passed} == {name}
    assert found.cosine_min == pytest.approx(-1)
    assert found.worst in {f"{name}, {a} against {b}" for a, b in failed}


def test_where_nothing_is_finite_is_the_worst_and_values_are_counted_once():
    good = made_up()
    bad = {**good.packed, "long": np.full((3, 64), np.nan, dtype=np.float32)}
    found = judge(SOURCE, SOURCE, "GPU", good, replace(good, precision=Rung.FP16, packed=bad))
    assert not found.passed
    assert (found.cosine_min, found.nan, found.inf) == (None, 3 * 64, 0)
    assert found.worst == "long, fp16 packed against fp32 padded"


def test_dna_is_counted_in_bases_and_other_weights_are_named():
    reference = made_up(DNABERT_S)
    source = ModelSource("/weights")
    half = replace(reference, precision=Rung.BF16)
    found = judge(ModelSource("dnabert_s"), source, "CPU", reference, half)
    assert (found.unit, found.weights, found.random_weights) == ("bases", "/weights", False)
