"""The Triton kernels: attention's tiles anywhere, all numbers where Triton runs.

Without a GPU Triton can interpret its kernels: set ``TRITON_INTERPRET=1`` with ``triton``
installed. Its interpreter multiplies BF16 wrongly (3.6 takes the bits for integers), so BF16 is
left to a GPU, in ``tests/gpu``.
"""

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from common.alphabet import PROTEIN
from common.model_specs import ModelSpec
from tests.support.dnabert import (
    SLOPES,
    attention,
    bounds,
    packed,
    random_checkpoint,
    random_tokens,
    small_spec,
)
from tests.support.esm1 import ESM1B
from tests.support.esmc import SPEC as ESMC_SMALL
from workers.models import kernels
from workers.models.attention import layouts
from workers.models.attention.choice import Choice, Kernel
from workers.models.dnabert_s.checkpoint import from_published
from workers.models.dnabert_s.model import DNABERTS
from workers.models.encoder import Encoder
from workers.models.families import model_class
from workers.models.fused import apply_fused
from workers.models.kernels.attention import BLOCK_M, takes, tiles_of, varlen_attention
from workers.models.kernels.gate import gelu_gate, silu_gate
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.norm_rotary import norm_and_rotate
from workers.models.kernels.rotary import rotate_in_place
from workers.models.random_weights import random_weights
from workers.models.rotary import RotaryEmbedding, rotate

IS_INTERPRETED = kernels.triton is not None and os.environ.get("TRITON_INTERPRET") == "1"

interpreted = pytest.mark.skipif(
    not IS_INTERPRETED, reason="needs triton and TRITON_INTERPRET=1, or tests/gpu and a GPU"
)

#: Lengths around the edges of tiles, unordered.
LENGTHS = [5, 64, 1, 200, 63, 128, 65, 17, 129, 127]

HEADS = 4

#: Head dimensions of all models, among them 24 (35M), which is not a power of 2.
HEAD_DIMS = [16, 24, 32, 64, 128]


# --- tiles ------------------------------------------------------------------------------------

segments = st.lists(st.integers(1, 5 * BLOCK_M), min_size=1, max_size=40)


@given(segments)
def test_every_query_of_every_segment_is_in_one_tile_exactly(lengths):
    cu_seqlens = bounds(lengths)
    seen = torch.zeros(sum(lengths), dtype=torch.int64)
    for start, length, first in tiles_of(cu_seqlens, sum(lengths)).tolist():
        if length:
            assert length == lengths[cu_seqlens.tolist().index(start)]
        seen[start + first : start + min(first + BLOCK_M, length)] += 1
    assert (seen == 1).all()


@given(segments)
def test_tiles_of_longer_segments_come_first_and_those_too_many_last(lengths):
    found = tiles_of(bounds(lengths), sum(lengths))[:, 1].tolist()
    assert all(one >= next_one for one, next_one in pairwise(found))
    assert len(found) - found.count(0) == sum(-(-length // BLOCK_M) for length in lengths)


@given(segments)
def test_how_many_tiles_there_are_follows_from_the_counts_alone(lengths):
    table = tiles_of(bounds(lengths), sum(lengths))
    assert table.shape == (-(-sum(lengths) // BLOCK_M) + len(lengths), 3)
    assert table.dtype == torch.int32


# --- attention ---------------------------------------------------------------------------------


def random_qkv(lengths: list[int], head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values as views of one fused tensor, as in a model."""
    generator = torch.Generator().manual_seed(head_dim)
    fused = torch.randn(sum(lengths), 3, HEADS, head_dim, generator=generator).half()
    return fused.unbind(1)


def test_it_is_not_taken_on_a_cpu():
    assert not takes(torch.device("cpu"), torch.float16, 64)


@interpreted
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("slopes", [None, SLOPES[HEADS]], ids=["plain", "alibi"])
def test_it_equals_attention_in_fp64(head_dim, slopes):
    q, k, v = random_qkv(LENGTHS, head_dim)
    given_slopes = None if slopes is None else torch.tensor(slopes)
    found = varlen_attention(q, k, v, tiles_of(bounds(LENGTHS), len(q)), given_slopes)
    parts = zip(*(t.double().split(LENGTHS) for t in (q, k, v)), strict=True)
    expected = torch.cat([attention(*part, slopes or [0.0] * HEADS) for part in parts])
    assert (found - expected).norm() / expected.norm() < 5e-4
    assert (found - expected).abs().max() < 5e-3


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on NaN
@pytest.mark.parametrize("broken", range(3))
def test_a_segment_that_is_not_finite_leaves_its_neighbours_exactly_as_they_are(broken):
    lengths = [70, 30, 100]
    q, k, v = random_qkv(lengths, 16)
    tiles = tiles_of(bounds(lengths), len(q))
    expected = varlen_attention(q, k, v, tiles, torch.tensor(SLOPES[HEADS])).split(lengths)
    for values in (q, k, v):
        values.split(lengths)[broken].fill_(torch.nan)
    found = varlen_attention(q, k, v, tiles, torch.tensor(SLOPES[HEADS])).split(lengths)
    assert found[broken].isnan().all()
    assert all(torch.equal(found[n], expected[n]) for n in range(3) if n != broken)


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on NaN
@pytest.mark.parametrize("slopes", [None, SLOPES[HEADS]], ids=["plain", "alibi"])
@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("place", [0, 63, 64, 69], ids=lambda place: f"token {place}")
@pytest.mark.parametrize("broken", ["q", "k"])
def test_a_token_whose_query_or_key_is_not_finite_is_nan(broken, place, amount, slopes):
    """In a block of keys that is whole, or in the last; all other products are above 0.

    A score of -Inf would be a weight of 0, and the result finite without that key.
    """
    lengths = [70, 30]
    given = {name: torch.rand(100, HEADS, 16).half() for name in ("q", "k", "v")}
    tiles, slopes = tiles_of(bounds(lengths), 100), slopes and torch.tensor(slopes)
    expected = varlen_attention(**given, tiles=tiles, slopes=slopes)
    given[broken][place, 1, 3] = amount
    found = varlen_attention(**given, tiles=tiles, slopes=slopes)
    assert found[place, 1].isnan().all()
    assert torch.equal(found[70:], expected[70:])
    assert torch.equal(found[:, [0, 2, 3]], expected[:, [0, 2, 3]])


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on NaN
def test_an_infinite_value_that_weighs_nothing_is_nan():
    """0 times Inf: the weight is too small for FP16, and would be more than 0 in FP32."""
    q, k, v = (torch.rand(100, HEADS, 16).half() for _ in range(3))
    k[5] = -100.0 * k[5]
    v[5, 1, 3] = torch.inf
    found = varlen_attention(q, k, v, tiles_of(bounds([70, 30]), 100), None)
    assert not found[:70, 1, 3].isfinite().any()


# --- the other kernels ------------------------------------------------------------------------


@interpreted
@pytest.mark.parametrize("dim", [20, 320, 768, 1280])
def test_the_norm_is_that_of_the_stream_with_what_it_lacks(dim):
    x = 3 * torch.randn(9, dim).half() + 1
    plus = torch.randn(dim)
    norm = torch.nn.LayerNorm(dim, eps=1e-5).half().requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    expected = F.layer_norm(x + plus, (dim,), norm.weight.float(), norm.bias.float(), norm.eps)
    assert (layer_norm(x, norm, plus) - expected).abs().max() < 8e-3


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on NaN
@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
def test_the_norm_of_a_row_that_is_not_finite_is_nan_and_of_its_neighbours_what_it_was(amount):
    x, plus = torch.randn(9, 320).half(), torch.zeros(320)
    norm = torch.nn.LayerNorm(320).half().requires_grad_(False)
    expected = layer_norm(x, norm, plus)
    x[4, 100] = amount
    found = layer_norm(x, norm, plus)
    assert found[4].isnan().all()
    rest = [row for row in range(9) if row != 4]
    assert torch.equal(found[rest], expected[rest])


@interpreted
@pytest.mark.parametrize("keys_only", [False, True])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_what_is_to_be_rotated_is_as_the_plain_block_does_it_and_the_rest_is_left(
    head_dim, keys_only
):
    qkv = torch.randn(37, 3 * HEADS * head_dim).half()
    angles = 100 * torch.rand(37, 1, head_dim // 2)
    q, k, v = qkv.clone().unflatten(-1, (3, HEADS, head_dim)).unbind(1)
    rotate_in_place(qkv, HEADS, angles.cos(), angles.sin(), keys_only=keys_only)
    found_q, found_k, found_v = qkv.unflatten(-1, (3, HEADS, head_dim)).unbind(1)
    expected_q = q if keys_only else rotate(q, angles.cos(), angles.sin())
    assert (found_q - expected_q).abs().max() < 4e-3
    assert (found_k - rotate(k, angles.cos(), angles.sin())).abs().max() < 4e-3
    assert torch.equal(found_v, v)


@interpreted
@pytest.mark.parametrize("dim", [96, 1024, 3072])
def test_the_gate_is_exact_gelu_times_the_values(dim):
    hidden = 2 * torch.randn(5, 2 * dim).half()
    gate, values = hidden.float().chunk(2, dim=-1)
    assert (gelu_gate(hidden) - F.gelu(gate) * values).abs().max() < 1e-2


@interpreted
@pytest.mark.parametrize("dim", [96, 1024, 3072])
def test_the_gate_of_esm_c_is_silu_times_the_values(dim):
    hidden = 2 * torch.randn(5, 2 * dim).half()
    gate, values = hidden.float().chunk(2, dim=-1)
    assert (silu_gate(hidden) - F.silu(gate) * values).abs().max() < 1e-2


@interpreted
@pytest.mark.parametrize("heads", [2, 3, 15])
def test_queries_and_keys_are_normed_over_all_heads_then_rotated(heads):
    dim = 64 * heads
    qkv = 3 * torch.randn(7, 3 * dim).half() + 1
    norms = [nn.LayerNorm(dim, bias=False).half() for _ in "qk"]
    for norm in norms:
        norm.weight.data.normal_(1.0, 0.2)
    cos, sin = RotaryEmbedding(64)(torch.arange(7))
    q, k, v = qkv.float().chunk(3, dim=-1)
    expected = [
        rotate(F.layer_norm(x, (dim,), norm.weight.float()).unflatten(-1, (heads, 64)), cos, sin)
        for x, norm in zip((q, k), norms, strict=True)
    ]
    values = v.clone()
    norm_and_rotate(qkv, heads, *norms, cos, sin)
    found = qkv.float().unflatten(-1, (3, heads, 64)).unbind(1)
    assert (found[0] - expected[0]).abs().max() < 5e-3
    assert (found[1] - expected[1]).abs().max() < 5e-3
    assert torch.equal(found[2].flatten(1), values)


@interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, on NaN
def test_a_query_that_is_not_finite_is_nan_in_all_heads_and_its_key_is_not():
    qkv = torch.randn(3, 3 * 128).half()
    qkv[1, 5] = torch.inf
    norms = [nn.LayerNorm(128, bias=False).half() for _ in "qk"]
    norm_and_rotate(qkv, 2, *norms, *RotaryEmbedding(64)(torch.arange(3)))
    assert qkv[1, :128].isnan().all()
    assert qkv[1, 128:].isfinite().all()
    assert qkv[[0, 2]].isfinite().all()


# --- the fast path ----------------------------------------------------------------------------


def random_half(spec: ModelSpec) -> Encoder:
    kind = model_class(spec)
    model = kind(spec)
    model.load_state_dict(random_weights(kind, spec))
    return model.half().eval().requires_grad_(False)


def protein_model() -> Encoder:
    return random_half(ModelSpec(name="small", layers=3, dim=64, heads=HEADS))


def heads_of_24() -> Encoder:
    return random_half(ModelSpec(name="small", layers=3, dim=96, heads=HEADS))


def esm1_model() -> Encoder:
    return random_half(replace(ESM1B, layers=2))


def esmc_model() -> Encoder:
    return random_half(ESMC_SMALL)


def dna_model() -> Encoder:
    spec = small_spec(heads=HEADS, dim=64)
    model = DNABERTS(spec)
    model.load_state_dict(from_published(random_checkpoint(spec), spec, Path("none")))
    return model.half().eval().requires_grad_(False)


@interpreted
@pytest.mark.parametrize("make", [protein_model, dna_model, esmc_model, esm1_model, heads_of_24])
def test_the_fast_path_gives_every_layer_as_the_plain_one_does(make, monkeypatch):
    model = make()
    sequences = random_tokens([70, 5, 9, 64])
    if model.spec.family.alphabet is PROTEIN:
        sequences = [one % 20 + 4 for one in sequences]
    layers = range(model.spec.layers + 1)
    expected = model.forward_packed(*packed(sequences), layers)
    of_triton = Choice(Kernel.TRITON, "")
    monkeypatch.setattr(layouts, "packed_choice", lambda _: of_triton)
    fused = apply_fused(model, Kernel.TRITON)
    found = fused.forward_packed(*packed(sequences), layers)
    for layer in layers:
        assert found[layer].dtype == torch.float16
        cosine = F.cosine_similarity(found[layer].float(), expected[layer].float(), dim=-1)
        assert cosine.min() > 0.9999, layer
    again = fused.forward_packed(*packed(sequences), [1])[1]
    assert torch.equal(again, found[1])


def test_the_fast_path_has_the_models_own_weights():
    model = protein_model()
    own = {weight.data_ptr() for weight in model.parameters()}
    fused = apply_fused(model, Kernel.TRITON)
    assert {weight.data_ptr() for weight in fused.parameters()} == own
