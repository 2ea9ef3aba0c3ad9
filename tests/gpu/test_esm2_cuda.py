"""The packed path as workers run it on a GPU: FP16, against fair-esm in FP32."""

import random

import numpy as np
import pytest
import torch

from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.results import oracle_means
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model
from workers.runtime.memory import SMALLEST_PACK_TOKENS, limit_memory

SHAPES = [
    ModelSpec(name="narrow_heads", layers=6, dim=320, heads=20),
    ModelSpec(name="wide_heads", layers=12, dim=640, heads=10),
]

FORM = OutputForm(max_residues=1022)


@pytest.fixture(scope="module", params=SHAPES, ids=lambda spec: spec.name)
def oracle(request):
    return random_fair_esm(request.param)


@pytest.fixture(scope="module")
def checkpoint(oracle, tmp_path_factory):
    return save_fair_esm(oracle, tmp_path_factory.mktemp("weights") / "model.pt")


@pytest.fixture(scope="module")
def proteins() -> list[str]:
    """Return proteins with unordered lengths from 1 to the limit."""
    draw = random.Random(0)
    edges = [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 400, 777, 1021, 1022]
    lengths = [*edges, *range(30, 300, 9)]
    draw.shuffle(lengths)
    return ["".join(draw.choices("LAGVSERTIDPKQNFYMHWCXUB", k=length)) for length in lengths]


@pytest.fixture(scope="module")
def expected(oracle, proteins):
    return oracle_means(oracle, proteins, oracle.num_layers)


def embedded(checkpoint, precision: Rung, proteins: list[str]) -> np.ndarray:
    engine = Engine(load_model(str(checkpoint), device="cuda", dtype=DTYPES[precision]))
    engine.warm_up()
    records = [Record(row, f"p{row}", protein) for row, protein in enumerate(proteins)]
    outcome = engine.embed(records, FORM)
    assert not outcome.unstable
    return outcome.embeddings.pooled["mean"]


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / norms


@pytest.mark.parametrize(("precision", "floor"), [(Rung.FP16, 0.9999), (Rung.BF16, 0.999)])
def test_half_precision_is_as_close_to_fair_esm_as_the_design_asks(
    checkpoint, proteins, expected, precision, floor
):
    assert cosines(embedded(checkpoint, precision, proteins), expected).min() >= floor


def test_fp32_goes_segment_by_segment_and_equals_fair_esm(checkpoint, proteins, expected):
    assert np.abs(embedded(checkpoint, Rung.FP32, proteins) - expected).max() <= 1e-4


def test_a_segment_does_not_depend_on_what_it_is_packed_with(checkpoint, proteins):
    together = embedded(checkpoint, Rung.FP16, proteins)
    alone = np.concatenate(each(checkpoint, proteins[:12]))
    assert cosines(together[:12], alone).min() > 0.9999


def each(checkpoint, proteins: list[str]) -> list[np.ndarray]:
    engine = Engine(load_model(str(checkpoint), device="cuda", dtype=torch.float16))
    return [
        engine.embed([Record(0, "p", protein)], FORM).embeddings.pooled["mean"]
        for protein in proteins
    ]


def test_memory_running_out_halves_the_pack_and_the_batch_completes(checkpoint, proteins):
    engine = Engine(load_model(str(checkpoint), device="cuda", dtype=torch.float16))
    records = [Record(row, "p", protein) for row, protein in enumerate(proteins * 4)]
    whole = engine.embed(records, FORM).embeddings.pooled["mean"]
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    before = engine.pack_tokens[Rung.FP16]
    try:
        torch.cuda.set_per_process_memory_fraction((used + 40 * 2**20) / total)
        capped = engine.embed(records, FORM).embeddings.pooled["mean"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert engine.pack_tokens[Rung.FP16] < before
    assert cosines(whole, capped).min() > 0.9999


def test_a_gpu_with_little_memory_gets_packs_that_fit_it(checkpoint, proteins, caplog):
    engine = Engine(load_model(str(checkpoint), device="cuda", dtype=torch.float16))
    engine.warm_up()
    most = engine.pack_tokens[Rung.FP16]
    torch.cuda.empty_cache()
    limit_memory((torch.cuda.memory_reserved() + 300 * 2**20) / 1e9)
    try:
        engine.warm_up()
        fewer = engine.pack_tokens[Rung.FP16]
        records = [Record(row, "p", protein) for row, protein in enumerate(proteins * 20)]
        outcome = engine.embed(records, FORM)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert SMALLEST_PACK_TOKENS < fewer < most
    assert len(outcome.embeddings) == len(records)
    assert "Out of device memory" not in caplog.text
