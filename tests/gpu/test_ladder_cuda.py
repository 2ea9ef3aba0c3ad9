"""The ladder on a GPU: one loaded model for all rungs, and no wait for the device in a pack."""

import warnings

import pytest
import torch

from common.model_specs import MODELS
from common.rungs import Rung
from tests.support.overflow import (
    DNA,
    PROTEIN,
    REPAIRED_BY,
    Model,
    nowhere,
    overflow_a_hidden_unit_below,
    overflow_the_scores,
)
from workers.engine.engine import Engine
from workers.models.encoder import Encoder
from workers.models.families import model_class
from workers.models.fused import fastest
from workers.models.loading import load_model
from workers.models.mixed_precision import apply_fp32, apply_selective_fp32

RUNGS = [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32]

#: Overflows that the fast path avoids, since it does not round these values.
UNROUNDED = {overflow_a_hidden_unit_below}

each_overflow = pytest.mark.parametrize(
    ("model", "overflow", "repaired_by"),
    REPAIRED_BY,
    ids=[overflow.__name__ for _, overflow, _ in REPAIRED_BY],
)


def overflowing(model: Model, overflow, folder) -> Engine:
    path = model.save(overflow, folder)
    engine = Engine(load_model(str(path), device="cuda", dtype=torch.float16))
    engine.warm_up()
    return engine


@each_overflow
def test_each_overflow_is_repaired_by_the_rung_that_reaches_so_far(
    model, overflow, repaired_by, tmp_path
):
    engine = overflowing(model, overflow, tmp_path)
    for rung in RUNGS:
        outcome = engine.embed(model.records(model.bad), model.form, rung=rung)
        repaired = RUNGS.index(rung) >= RUNGS.index(repaired_by)
        expected = [] if repaired or (rung is Rung.FP16 and overflow in UNROUNDED) else [4]
        assert [bad.row for bad in outcome.unstable] == expected, rung


@each_overflow
def test_what_is_finite_is_what_fp32_gives(model, overflow, repaired_by, tmp_path):
    engine = overflowing(model, overflow, tmp_path)
    found = {
        rung: engine.embed(model.records(model.bad), model.form, rung=rung).embeddings
        for rung in RUNGS
    }
    exact = torch.from_numpy(found[Rung.FP32].pooled["mean"])
    for rung, embeddings in found.items():
        means = torch.from_numpy(embeddings.pooled["mean"])
        assert torch.cosine_similarity(means, exact[embeddings.rows]).min() > 0.999, rung


@each_overflow
def test_neighbours_are_bit_for_bit_what_they_are_beside_a_harmless_record(
    model, overflow, repaired_by, tmp_path
):
    engine = overflowing(model, overflow, tmp_path)
    beside_bad = engine.embed(model.records(model.bad), model.form).embeddings
    beside_good = engine.embed(model.records(model.harmless), model.form).embeddings
    for name, values in beside_bad.pooled.items():
        neighbours = values[beside_bad.rows != 4]
        assert neighbours.tobytes() == beside_good.pooled[name][beside_good.rows != 4].tobytes()


def test_scores_beyond_fp16_need_no_rung(tmp_path):
    engine = overflowing(PROTEIN, overflow_the_scores, tmp_path)
    for rung in RUNGS:
        assert engine.embed(PROTEIN.records(PROTEIN.bad), PROTEIN.form, rung=rung).unstable == ()


def random_half(name: str) -> Encoder:
    spec = MODELS[name]
    with torch.device("cuda"):
        return model_class(spec)(spec).half().eval().requires_grad_(False)


def test_all_views_of_3b_take_less_than_a_megabyte():
    model = random_half("esm2_t36_3B_UR50D")
    before = torch.cuda.memory_allocated()
    views = [fastest(model), apply_selective_fp32(model), apply_fp32(model)]
    assert torch.cuda.memory_allocated() - before < 1e6
    assert len(views) == 3


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it is a prototype, it says
@pytest.mark.parametrize("model", [PROTEIN, DNA], ids=["ESM-2", "DNABERT-S"])
@pytest.mark.parametrize("rung", [Rung.FP16, Rung.SELECTIVE_FP32])
def test_nothing_waits_for_the_device_but_for_a_packs_end(model, rung, tmp_path):
    engine = overflowing(model, nowhere, tmp_path)
    form = model.form.model_copy(update={"include": ("mean", "bos")})
    engine.embed(model.records(model.harmless), form, rung=rung)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.embed(model.records(model.harmless), form, rung=rung)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not [warning for warning in seen if "synchronizing" in str(warning.message)]
