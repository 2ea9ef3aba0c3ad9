"""The fast path of ESM-2 on a CPU against the plain blocks with the same weights."""

import copy

import pytest
import torch

from common.model_specs import ModelSpec
from tests.support.fair_esm import ALPHABET, random_fair_esm, save_fair_esm, tokenize
from tests.unit.workers.models.test_esm2 import (
    CLOSE,
    SEQUENCES,
    difference,
    every_layer,
    run_packed,
    run_padded,
)
from workers.engine.engine import Engine
from workers.models.esm2.cpu import CpuESM2, pair_halves, rotate_pairs
from workers.models.esm2.model import ESM2, rotate
from workers.models.fused import fastest
from workers.models.loading import LoadedModel, load_model

SHAPES = [
    ModelSpec(name="heads_of_16", layers=3, dim=320, heads=20),
    ModelSpec(name="heads_of_24", layers=3, dim=96, heads=4),
    ModelSpec(name="heads_of_64", layers=3, dim=256, heads=4),
]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda spec: spec.name)
def loaded(request, tmp_path_factory) -> LoadedModel:
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    return load_model(str(save_fair_esm(random_fair_esm(request.param), path)), dtype=torch.float32)


@pytest.fixture
def model(loaded) -> ESM2:
    return loaded.model


@pytest.mark.parametrize("run", [run_padded, run_packed])
def test_every_representation_equals_that_of_the_padded_plain_model(model, run):
    tokens, layers = tokenize(SEQUENCES), every_layer(model)
    expected = run_padded(model, tokens, layers)
    assert difference(run(fastest(model), tokens, layers), expected) <= CLOSE


def test_in_bf16_it_is_as_close_to_fp32_as_the_plain_blocks(model):
    tokens, last = tokenize(SEQUENCES), model.spec.layers
    rounded = copy.deepcopy(model).bfloat16()
    exact = run_padded(model, tokens, [last])[last]
    plain, fast = (
        torch.linalg.norm(run_packed(view, tokens, [last])[last].float() - exact)
        for view in (rounded, fastest(rounded))
    )
    assert fast < 1.05 * plain


def test_an_engine_uses_it_for_the_models_own_precision(loaded):
    engine = Engine(loaded)
    assert isinstance(engine.models[engine.precision], CpuESM2)


def test_it_is_not_used_in_fp16(model):
    half = copy.deepcopy(model).half()
    assert fastest(half) is half


def test_only_the_weights_of_queries_and_keys_are_copies(model):
    own = {weight.data_ptr() for weight in model.parameters()}
    fast = fastest(model)
    assert {weight.data_ptr() for weight in fast.parameters()} == own
    qkv, block = model.blocks[0].qkv.weight, fast.blocks[0]
    assert block.v.data_ptr() == qkv[2 * model.spec.dim :].data_ptr()
    assert block.qk.data_ptr() != qkv.data_ptr()


def test_a_segment_that_is_not_finite_leaves_its_neighbours_exactly_as_they_are(model):
    broken = copy.deepcopy(model)
    broken.embed_tokens.weight[ALPHABET.get_idx("O")] = torch.inf
    tokens, last = tokenize(["MKTAYIAK", "MKTOYIAK", "GAVLIPFM"]), model.spec.layers
    found = run_packed(fastest(broken), tokens, [last])[last].unflatten(0, (3, -1))
    expected = run_packed(fastest(model), tokens, [last])[last].unflatten(0, (3, -1))
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert found[1].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_or_key_that_is_not_finite_is_nan_where_it_is_rotated(dtype):
    x = torch.ones(5, 1, 4, dtype=dtype)
    x[1, 0, 0], x[2, 0, 3], x[3, 0, 1] = torch.inf, -torch.inf, torch.nan
    x[4] = torch.finfo(dtype).max  # turned by 45 degrees a component grows by the root of 2
    half = torch.full((5, 1, 2), 0.5**0.5)
    rotate_pairs(x, torch.complex(half, half))
    assert not x.isinf().any()
    assert x.isnan().any(-1).flatten().tolist() == [False, True, True, True, True]


def test_a_rotation_of_neighbours_is_one_of_halves_in_another_order():
    x, angles = torch.randn(7, 3, 8), torch.randn(7, 1, 4)
    expected = rotate(x, angles.cos(), angles.sin())
    paired = torch.stack([pair_halves(row, 1) for row in x.flatten(0, 1)]).view_as(x)
    rotate_pairs(paired, torch.polar(torch.ones_like(angles), angles))
    torch.testing.assert_close(paired.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2), expected)
