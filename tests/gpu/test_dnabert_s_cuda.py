"""DNABERT-S and its Triton kernel on a GPU, against FP64 and FP32."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.dnabert import (
    SLOPES,
    attention,
    bounds,
    packed,
    padded,
    random_checkpoint,
    random_tokens,
    save_checkpoint,
    small_spec,
)
from workers.models.dnabert_s.model import DNABERTS
from workers.models.fused import fastest
from workers.models.kernels.attention import STEPS, takes, tiles_of, varlen_attention
from workers.models.loading import load_model

#: Lengths from one token to twice the window, around the edges of tiles, unordered.
LENGTHS = [333, 2, 64, 1, 2002, 63, 128, 15, 65, 4001, 129, 16, 127, 17, 500, 77, 90, 1024]

HEADS = 12

SPEC = small_spec(heads=HEADS, dim=768, layers=4)
LAST = SPEC.layers

#: Bounds for the rounding of queries, weights and result: ``(relative, absolute)``.
BOUNDS = {torch.float16: (1e-3, 1e-2), torch.bfloat16: (8e-3, 8e-2)}


# --- the kernel -------------------------------------------------------------------------------


def random_qkv(head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values as views of one fused tensor, as in a model."""
    generator = torch.Generator("cuda").manual_seed(head_dim)
    shape = (sum(LENGTHS), 3, HEADS, head_dim)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype).unbind(1)


def attend(q: Tensor, k: Tensor, v: Tensor, slopes: list[float] | None) -> Tensor:
    tiles = tiles_of(bounds(LENGTHS).cuda(), len(q))
    return varlen_attention(q, k, v, tiles, slopes and torch.tensor(slopes, device="cuda"))


@pytest.mark.parametrize("head_dim", [*STEPS, 24])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("slopes", [None, SLOPES[HEADS]], ids=["plain", "alibi"])
def test_the_kernel_equals_attention_in_fp64(head_dim, dtype, slopes):
    assert takes(torch.device("cuda"), dtype, head_dim)
    q, k, v = random_qkv(head_dim, dtype)
    found = attend(q, k, v, slopes)
    assert (found.dtype, found.shape) == (dtype, q.shape)
    parts = zip(*(t.double().split(LENGTHS) for t in (q, k, v)), strict=True)
    expected = torch.cat([attention(*part, slopes or [0.0] * HEADS) for part in parts])
    relative, largest = BOUNDS[dtype]
    assert (found - expected).norm() / expected.norm() < relative
    assert (found - expected).abs().max() < largest


def test_a_segment_that_is_not_finite_leaves_its_neighbours_exactly_as_they_are():
    q, k, v = random_qkv(64, torch.float16)
    expected = attend(q, k, v, SLOPES[HEADS]).split(LENGTHS)
    broken = 8
    for values in (q, k, v):
        values.split(LENGTHS)[broken].fill_(torch.nan)
    found = attend(q, k, v, SLOPES[HEADS]).split(LENGTHS)
    assert found[broken].isnan().all()
    whole = [n for n in range(len(LENGTHS)) if n != broken]
    assert all(torch.equal(found[n], expected[n]) for n in whole)


@pytest.mark.parametrize("slopes", [None, SLOPES[HEADS]], ids=["plain", "alibi"])
@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("broken", ["q", "k"])
def test_a_token_whose_query_or_key_is_not_finite_is_nan(broken, dtype, amount, slopes):
    """All other products are above 0: a score of -Inf would be a weight of 0."""
    shape = sum(LENGTHS), HEADS, 64
    given = {name: torch.rand(shape, device="cuda").to(dtype) for name in ("q", "k", "v")}
    expected = attend(**given, slopes=slopes)
    places = bounds(LENGTHS)[:-1] + torch.tensor(LENGTHS) // 2
    odd = places[::2]  # in every other segment
    given[broken][odd, 1, 3] = amount
    found = attend(**given, slopes=slopes)
    assert found[odd, 1].isnan().all()
    whole = [head for head in range(HEADS) if head != 1]
    assert torch.equal(found[:, whole], expected[:, whole])
    neighbours = zip(found.split(LENGTHS)[1::2], expected.split(LENGTHS)[1::2], strict=True)
    assert all(torch.equal(one, other) for one, other in neighbours)


def test_large_scores_do_not_overflow():
    q, k, v = random_qkv(64, torch.float16)
    found = attend(q * 200, k * 200, v, SLOPES[HEADS])  # scores of several 100,000
    assert found.isfinite().all()


def test_a_pack_may_hold_more_values_than_32_bits_can_count():
    length, count = 1000, 600
    fused = torch.randn(length * count, 3, 20, 64, device="cuda", dtype=torch.float16)
    assert fused.numel() > 2**31
    q, k, v = fused.unbind(1)
    found = varlen_attention(q, k, v, tiles_of(bounds([length] * count).cuda(), len(q)), None)
    last = attention(*(t[-length:].double() for t in (q, k, v)), [0.0] * 20)
    assert (found[-length:] - last).abs().max() < 1e-2


# --- the model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(tmp_path_factory) -> DNABERTS:
    """The model in FP32."""
    folder = save_checkpoint(SPEC, random_checkpoint(SPEC), tmp_path_factory.mktemp("weights"))
    return load_model(str(folder), device="cuda", dtype=torch.float32).model


@pytest.fixture(scope="module")
def half(exact) -> DNABERTS:
    """The model in FP16, as it is loaded."""
    return cast(exact, torch.float16)


@pytest.fixture(scope="module")
def served(half) -> DNABERTS:
    """The model as workers run it."""
    return fastest(half)


def cast(model: DNABERTS, dtype: torch.dtype) -> DNABERTS:
    return copy.deepcopy(model).to(dtype)


@pytest.fixture(scope="module")
def sequences() -> list[Tensor]:
    return random_tokens(LENGTHS)


def run_packed(model: DNABERTS, sequences: list[Tensor]) -> Tensor:
    ids, cu_seqlens, longest = packed(sequences)
    return model.forward_packed(ids.cuda(), cu_seqlens.cuda(), longest, [LAST])[LAST].double()


def run_padded(model: DNABERTS, sequences: list[Tensor]) -> Tensor:
    """Run each sequence with half of it: the biases of all together would be too large."""
    parts = []
    for one in sequences:
        tokens, real = (t.cuda() for t in padded([one, one[: len(one) // 2 + 1]]))
        parts.append(model(tokens, real, [LAST])[LAST][0])
    return torch.cat(parts).double()


def least_cosine(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one, other, dim=-1).min())


def means(values: Tensor, sequences: list[Tensor]) -> Tensor:
    """Return the embedding of each sequence, ``[N, D]``."""
    return torch.stack([part.mean(0) for part in values.split([len(one) for one in sequences])])


def test_fp32_goes_segment_by_segment_and_packed_equals_padded(exact, sequences):
    assert (run_packed(exact, sequences) - run_padded(exact, sequences)).abs().max() <= 1e-4


def test_packed_fp16_is_as_close_to_padded_fp32_as_the_design_asks(exact, half, sequences):
    found, expected = run_packed(half, sequences), run_padded(exact, sequences)
    assert least_cosine(found, expected) >= 0.999
    assert least_cosine(means(found, sequences), means(expected, sequences)) >= 0.9999


def test_packed_bfloat16_is_close_to_padded_fp32(exact, sequences):
    found, expected = (
        run_packed(cast(exact, torch.bfloat16), sequences),
        run_padded(exact, sequences),
    )
    assert least_cosine(means(found, sequences), means(expected, sequences)) >= 0.999


def test_packed_fp16_equals_padded_fp16(half, sequences):
    assert least_cosine(run_packed(half, sequences), run_padded(half, sequences)) > 0.9999


def test_a_segment_does_not_depend_on_what_it_is_packed_with(half, sequences):
    together = run_packed(half, sequences)
    alone = torch.cat([run_packed(half, [one]) for one in sequences])
    assert least_cosine(together, alone) > 0.9999


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it is a prototype, it says
def test_a_packed_pass_in_fp16_never_waits_for_the_device(half, sequences):
    ids, cu_seqlens, longest = packed(sequences)
    given = ids.cuda(), cu_seqlens.cuda(), longest, [LAST]
    half.forward_packed(*given)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        half.forward_packed(*given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_plain_bert_without_alibi_would_be_seen(exact, half, sequences):
    plain = cast(exact, torch.float16)
    plain.alibi.slopes.zero_()
    assert least_cosine(run_packed(plain, sequences), run_packed(half, sequences)) < 0.999
