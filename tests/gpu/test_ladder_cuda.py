"""The ladder on a GPU: one loaded model for all rungs, and one wait for the device in a pack."""

import warnings

import pytest
import torch

from common.batchfile import Record
from common.manifest import OutputForm
from common.modeltable import MODELS, ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.overflow import (
    RARE,
    add_to_the_stream,
    add_too_much_at_once,
    overflow_a_hidden_unit,
    overflow_a_query,
    overflow_the_scores,
)
from workers.engine import Engine
from workers.models.encoder import Encoder
from workers.models.loading import load_model, model_class
from workers.models.mixed_precision import apply_fp32, apply_selective_fp32

SPEC = ModelSpec(name="small", layers=2, dim=64, heads=4)
FORM = OutputForm(include=("mean", "bos"), max_residues=1022)
GOOD = ["MKTAYIAKQRQISFVKSHFSRQ", "GAVLIPFMW", "MDEEKLLSNQWERTYCCH", "M"]
BAD = "MKTAYIAKQRQISF" + RARE + "KSHFS"


def records(middle: str) -> list[Record]:
    return [Record(row, f"p{row}", residues) for row, residues in enumerate([*GOOD, middle, *GOOD])]


def overflowing(overflow, folder) -> Engine:
    model = random_fair_esm(SPEC)
    overflow(model)
    path = save_fair_esm(model, folder / "overflow.pt")
    engine = Engine(load_model(str(path), device="cuda", dtype=torch.float16))
    engine.warm_up()
    return engine


CASES = [
    (add_to_the_stream, Rung.SELECTIVE_FP32),
    (add_too_much_at_once, Rung.SELECTIVE_FP32),
    (overflow_a_hidden_unit, Rung.FP32),
    (overflow_a_query, Rung.FP32),
    (overflow_the_scores, Rung.FP16),
]


@pytest.mark.parametrize(("overflow", "repaired_by"), CASES)
def test_each_overflow_is_repaired_by_the_rung_that_reaches_so_far(overflow, repaired_by, tmp_path):
    engine = overflowing(overflow, tmp_path)
    rungs = [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32]
    for rung in rungs:
        outcome = engine.embed(records(BAD), FORM, rung=rung)
        expected = [] if rungs.index(rung) >= rungs.index(repaired_by) else [4]
        assert [bad.row for bad in outcome.unstable] == expected, rung


@pytest.mark.parametrize("overflow", [overflow for overflow, _ in CASES[:4]])
def test_neighbours_are_bit_for_bit_what_they_are_beside_a_harmless_record(overflow, tmp_path):
    engine = overflowing(overflow, tmp_path)
    beside_bad = engine.embed(records(BAD), FORM).embeddings
    beside_good = engine.embed(records(BAD.replace(RARE, "V")), FORM).embeddings
    for name, values in beside_bad.pooled.items():
        expected = beside_good.pooled[name][[0, 1, 2, 3, 5, 6, 7, 8]]
        assert values.tobytes() == expected.tobytes()


def random_half(name: str) -> Encoder:
    spec = MODELS[name]
    with torch.device("cuda"):
        return model_class(spec)(spec).half().eval().requires_grad_(False)


def test_both_views_of_3b_take_less_than_a_megabyte():
    model = random_half("esm2_t36_3B_UR50D")
    before = torch.cuda.memory_allocated()
    views = [apply_selective_fp32(model), apply_fp32(model)]
    assert torch.cuda.memory_allocated() - before < 1e6
    assert len(views) == 2


@pytest.mark.parametrize("rung", [Rung.FP16, Rung.SELECTIVE_FP32])
def test_a_pack_waits_for_the_device_once(rung, tmp_path):
    path = save_fair_esm(random_fair_esm(SPEC), tmp_path / "small.pt")
    engine = Engine(load_model(str(path), device="cuda", dtype=torch.float16))
    engine.warm_up()
    engine.embed(records("MKV"), FORM, rung=rung)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.embed(records("MKV"), FORM, rung=rung)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(warning.message) for warning in seen) == 1, seen
