"""ESM-2 against fair-esm 2.0.0 in FP32 with the same random weights."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.model_specs import ModelSpec
from tests.support.fair_esm import (
    ALPHABET,
    load_fair_esm,
    random_fair_esm,
    save_fair_esm,
    tokenize,
)
from workers.models.esm2.model import ESM2
from workers.models.loading import load_model
from workers.models.rotary import exact_inv_freq, rotate

#: The bound of every comparison in FP32.
CLOSE = 2e-5

HEAD_DIM_16 = ModelSpec(name="esm2_head_dim_16", layers=6, dim=320, heads=20)
HEAD_DIM_64 = ModelSpec(name="esm2_head_dim_64", layers=3, dim=256, heads=4)


def protein(length: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("LAGVSERTIDPKQNFYMHWCXBUZO", k=length))


#: Proteins of one residue to hundreds, with few, many and no masks.
SEQUENCES = [
    protein(57, 1),
    "M",
    protein(90, 2) + "<mask>" + protein(300, 3) + "<mask>" * 9 + protein(20, 4),
    "<mask>" + protein(2, 5),
    protein(600, 6),
]


@pytest.fixture(scope="module", params=[HEAD_DIM_16, HEAD_DIM_64], ids=lambda spec: spec.name)
def checkpoint(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"{request.param.name}.pt"
    return save_fair_esm(random_fair_esm(request.param), path)


@pytest.fixture(scope="module")
def oracle(checkpoint):
    return load_fair_esm(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint) -> ESM2:
    return load_model(str(checkpoint), dtype=torch.float32).model


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return tokenize(SEQUENCES)


@pytest.fixture(scope="module")
def expected(oracle, tokens) -> dict[int, Tensor]:
    """Return fair-esm's representations at real tokens, ``{layer: [T, D]}``."""
    layers = range(oracle.num_layers + 1)
    found = oracle(tokens, repr_layers=layers)["representations"]
    return {layer: found[layer][tokens != ALPHABET.padding_idx] for layer in layers}


def pack(tokens: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return padded tokens ``[B, T]`` as the arguments of ``forward_packed``."""
    real = tokens != ALPHABET.padding_idx
    lengths = real.sum(1)
    cu_seqlens = F.pad(lengths.cumsum(0), (1, 0)).int()
    return tokens[real], cu_seqlens, int(lengths.max())


def run_packed(model: ESM2, tokens: Tensor, layers: list[int]) -> dict[int, Tensor]:
    return model.forward_packed(*pack(tokens), layers)


def run_padded(model: ESM2, tokens: Tensor, layers: list[int]) -> dict[int, Tensor]:
    found = model(tokens, tokens != ALPHABET.padding_idx, layers)
    return {layer: values[tokens != ALPHABET.padding_idx] for layer, values in found.items()}


def difference(found: dict[int, Tensor], expected: dict[int, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[layer] - expected[layer]).abs().max()) for layer in expected)


def every_layer(model: ESM2) -> list[int]:
    return list(range(model.spec.layers + 1))


@pytest.mark.parametrize("run", [run_padded, run_packed])
def test_every_representation_equals_fair_esm(model, tokens, expected, run):
    assert difference(run(model, tokens, every_layer(model)), expected) <= CLOSE


def test_packed_equals_padded(model, tokens):
    layers = every_layer(model)
    packed, padded = run_packed(model, tokens, layers), run_padded(model, tokens, layers)
    assert difference(packed, padded) <= CLOSE


def test_frequencies_by_the_formula_instead_of_the_checkpoint_give_another_model(
    model, tokens, expected
):
    recomputed = copy.deepcopy(model)
    recomputed.rotary.inv_freq = exact_inv_freq(model.spec.dim // model.spec.heads)
    assert difference(run_packed(recomputed, tokens, every_layer(model)), expected) > 1000 * CLOSE


def test_a_mask_is_zeroed_and_rescaled_per_segment(model):
    whole, masked = tokenize(["MKTAY", "M<mask>TA<mask>"])
    found = run_packed(model, torch.stack((whole, masked)), [0])[0].unflatten(0, (2, 7))
    letters = model.embed_tokens(whole)
    torch.testing.assert_close(found[0], 0.88 * letters)
    torch.testing.assert_close(found[1, [1, 3, 4]], 0.88 / (1 - 2 / 7) * letters[[1, 3, 4]])
    assert not found[1, [2, 5]].any()


def test_a_segment_does_not_depend_on_its_neighbours(model, tokens):
    last = model.spec.layers
    together = run_packed(model, tokens, [last])[last]
    alone = [run_packed(model, tokenize([one]), [last])[last] for one in SEQUENCES]
    assert difference({last: together}, {last: torch.cat(alone)}) <= CLOSE


def test_positions_start_anew_in_every_segment(model, tokens):
    """Attention sees only differences; but FP32 angles lose digits far down a pack."""
    angles = []
    hook = model.blocks[0].register_forward_pre_hook(lambda _, given: angles.append(given[1:3]))
    run_packed(model, tokens, [1])
    hook.remove()
    _, cu_seqlens, _ = pack(tokens)
    positions = torch.cat([torch.arange(length) for length in cu_seqlens.diff()])
    for found, expected in zip(angles[0], model.rotary(positions), strict=True):
        assert torch.equal(found, expected)


def test_a_segment_that_is_not_finite_leaves_its_neighbours_exactly_as_they_are(model):
    broken = copy.deepcopy(model)
    broken.embed_tokens.weight[ALPHABET.get_idx("O")] = torch.inf
    tokens, last = tokenize(["MKTAYIAK", "MKTOYIAK", "GAVLIPFM"]), model.spec.layers
    found = run_packed(broken, tokens, [last])[last].unflatten(0, (3, -1))
    assert torch.equal(
        found[[0, 2]], run_packed(model, tokens, [last])[last].unflatten(0, (3, -1))[[0, 2]]
    )
    assert found[1].isnan().all()


def test_one_representation_alone_equals_the_same_from_a_full_run(model, tokens):
    full = run_packed(model, tokens, every_layer(model))
    for layer in every_layer(model):
        assert torch.equal(run_packed(model, tokens, [layer])[layer], full[layer])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_query_or_key_that_is_not_finite_is_nan_where_it_is_rotated(dtype):
    """As an infinite one it could be a weight of 0 in a result that is finite."""
    x = torch.ones(5, 1, 4, dtype=dtype)
    x[1, 0, 0], x[2, 0, 3], x[3, 0, 1] = torch.inf, -torch.inf, torch.nan
    x[4] = torch.finfo(dtype).max  # turned by 45 degrees a component grows by the root of 2
    half = torch.full((5, 1, 2), 0.5**0.5)
    found = rotate(x, half, half)
    assert found.dtype == dtype
    assert not found.isinf().any()
    assert found.isnan().any(-1).flatten().tolist() == [False, True, True, True, True]


def test_the_largest_queries_and_keys_stay_as_they_are():
    x = torch.tensor([[[65504.0, -65504.0, 1.0, 0.0]]]).half()
    assert torch.equal(rotate(x, torch.ones(1, 1, 2), torch.zeros(1, 1, 2)), x)


@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.bfloat16])
def test_casting_the_model_never_rounds_the_frequencies(model, cast):
    rounded = cast(copy.deepcopy(model))
    assert rounded.embed_tokens.weight.dtype != torch.float32
    assert torch.equal(rounded.rotary.inv_freq, model.rotary.inv_freq)
    assert rounded.rotary.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_loading_in_any_dtype_keeps_the_frequencies(checkpoint, model, dtype):
    loaded = load_model(str(checkpoint), dtype=dtype).model
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}
    assert torch.equal(loaded.rotary.inv_freq, model.rotary.inv_freq)


@pytest.mark.parametrize("run", [run_padded, run_packed])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_forward_pass_changes_no_dtype(model, dtype, run):
    cast = copy.deepcopy(model).to(dtype)
    before = {name: (t.dtype, t.data_ptr()) for name, t in cast.state_dict().items()}
    found = run(cast, tokenize(["MKT<mask>Y", "GAVL"]), every_layer(model))
    assert {name: (t.dtype, t.data_ptr()) for name, t in cast.state_dict().items()} == before
    assert {representation.dtype for representation in found.values()} == {dtype}


def test_bfloat16_is_close_to_float32(model, tokens, expected):
    last = model.spec.layers
    found = run_packed(copy.deepcopy(model).bfloat16(), tokens, [last])[last]
    assert F.cosine_similarity(found.float(), expected[last], dim=-1).min() > 0.99
