"""The Triton kernel: its tiles anywhere, its numbers where Triton runs.

Without a GPU Triton can interpret its kernels: set ``TRITON_INTERPRET=1`` with ``triton``
installed. Its interpreter multiplies BF16 wrongly (3.6 takes the bits for integers), so BF16 is
left to a GPU, in ``tests/gpu``.
"""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.dnabert import (
    SLOPES,
    attention,
    bounds,
    packed,
    random_checkpoint,
    random_tokens,
    reference,
    small_spec,
)
from workers.models import varlen_kernel
from workers.models.dnabert_checkpoint import from_hugging_face
from workers.models.dnabert_s import DNABERTS
from workers.models.varlen_kernel import BLOCK_M, STAGES, takes, tiles_of, varlen_attention

IS_INTERPRETED = varlen_kernel.triton is not None and os.environ.get("TRITON_INTERPRET") == "1"

interpreted = pytest.mark.skipif(
    not IS_INTERPRETED, reason="needs triton and TRITON_INTERPRET=1, or tests/gpu and a GPU"
)

#: Around the edges of tiles, and in no order.
LENGTHS = [5, 64, 1, 200, 63, 128, 65, 17, 129, 127]

HEADS = 4


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


# --- the operator -----------------------------------------------------------------------------


def random_qkv(lengths: list[int], head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of one fused tensor, as a model's projection gives them."""
    generator = torch.Generator().manual_seed(head_dim)
    fused = torch.randn(sum(lengths), 3, HEADS, head_dim, generator=generator).half()
    return fused.unbind(1)


def test_the_shape_of_its_result_is_known_without_running_it():
    q, k, v = (t.to("meta") for t in random_qkv(LENGTHS, 64))
    found = varlen_attention(q, k, v, torch.empty(9, 3, device="meta"), None)
    assert (found.shape, found.dtype) == (q.shape, q.dtype)
    assert found.is_contiguous()


def test_it_is_not_taken_on_a_cpu():
    assert not takes(torch.device("cpu"), torch.float16, 64)


@interpreted
@pytest.mark.parametrize("head_dim", STAGES)
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


@interpreted
def test_torch_finds_the_operator_well_formed():
    q, k, v = random_qkv([5, 70], 16)
    arguments = (q, k, v, tiles_of(bounds([5, 70]), len(q)), torch.tensor(SLOPES[HEADS]))
    torch.library.opcheck(
        varlen_attention, arguments, test_utils=("test_schema", "test_faketensor")
    )


@interpreted
def test_a_model_compiles_with_it_into_one_graph_for_any_pack(monkeypatch):
    monkeypatch.setattr(varlen_kernel, "takes", lambda *_: True)
    spec = small_spec(heads=HEADS, dim=64)
    weights = random_checkpoint(spec)
    model = DNABERTS(spec)
    model.load_state_dict(from_hugging_face(weights, spec, Path("none")))
    model.half().eval().requires_grad_(False)
    for block in model.blocks:
        block.compile(backend="aot_eager", fullgraph=True, dynamic=True)

    def cosine(lengths: list[int]) -> float:
        sequences = random_tokens(lengths)
        found = model.forward_packed(*packed(sequences), [2])[2]
        expected = [reference(weights, one, HEADS)[2] for one in sequences]
        return float(F.cosine_similarity(found.double(), torch.cat(expected), dim=-1).min())

    assert cosine([70, 5, 9]) > 0.9999  # sizes that are not alike by chance
    with torch.compiler.set_stance("fail_on_recompile"):
        assert cosine([3, 64, 20, 130]) > 0.9999
