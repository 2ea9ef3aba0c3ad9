"""The Gluon attention kernel on a Hopper GPU, against FP64 and the Triton kernel."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.dnabert import attention, bounds
from workers.models.kernels.attention import tiles_of, varlen_attention
from workers.models.kernels.hopper import HEAD_DIMS, takes
from workers.models.kernels.hopper import attention as hopper_attention
from workers.models.rotary import RotaryEmbedding, rotate

IS_TAKEN = torch.cuda.is_available() and takes(torch.device("cuda"), torch.float16, HEAD_DIMS[0])

pytestmark = pytest.mark.skipif(not IS_TAKEN, reason="needs a Hopper GPU and Gluon")

#: Lengths from one token to twice the window, around the edges of tiles, unordered.
LENGTHS = [333, 2, 64, 1, 2002, 63, 128, 15, 65, 4001, 129, 16, 127, 17, 500, 77, 90, 1024, 3]

HEADS = 12

#: The head dimension where all are alike.
HEAD_DIM = 64

heads_of = pytest.mark.parametrize("head_dim", HEAD_DIMS)

#: Slopes of ALiBi, one a head.
SLOPES = [2.0**-n for n in range(1, HEADS + 1)]

#: Bounds for the rounding of queries, weights and result: ``(relative, absolute)``.
BOUNDS = {torch.float16: (1e-3, 1e-2), torch.bfloat16: (8e-3, 8e-2)}


def random_qkv(
    lengths: list[int], dtype: torch.dtype, seed: int = 0, head_dim: int = HEAD_DIM
) -> Tensor:
    """Return random queries, keys and values ``[T, 3, H, Dh]``."""
    generator = torch.Generator("cuda").manual_seed(seed)
    shape = (sum(lengths), 3, HEADS, head_dim)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype)


def turns(lengths: list[int], head_dim: int = HEAD_DIM) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of each token's position in its segment."""
    positions = torch.cat([torch.arange(length) for length in lengths])
    return tuple(x.cuda() for x in RotaryEmbedding(head_dim)(positions))


def attend(
    qkv: Tensor,
    cos: Tensor | None = None,
    sin: Tensor | None = None,
    lengths: list[int] = LENGTHS,
    **more: Any,
) -> Tensor:
    tiles = tiles_of(bounds(lengths).cuda(), len(qkv))
    given = None if cos is None or sin is None else (cos, sin)
    return hopper_attention(qkv.flatten(1), qkv.shape[2], tiles, turns=given, **more)


def reference(
    q: Tensor, k: Tensor, v: Tensor, lengths: list[int], slopes: list[float] | None = None
) -> Tensor:
    """Return the result in FP64."""
    parts = zip(*(t.double().split(lengths) for t in (q, k, v)), strict=True)
    return torch.cat([attention(*part, slopes or [0.0] * HEADS) for part in parts])


def assert_close(found: Tensor, expected: Tensor) -> None:
    relative, largest = BOUNDS[found.dtype]
    assert (found - expected).norm() / expected.norm() < relative
    assert (found - expected).abs().max() < largest


def test_only_halves_and_heads_of_some_widths_are_taken():
    device = torch.device("cuda")
    assert takes(device, torch.bfloat16, HEAD_DIM)
    assert not takes(device, torch.float32, HEAD_DIM)
    assert not takes(device, torch.float16, 24)
    assert not takes(device, torch.float16, 128)
    assert not takes(torch.device("cpu"), torch.float16, HEAD_DIM)


@heads_of
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_it_equals_attention_in_fp64(dtype, head_dim):
    qkv = random_qkv(LENGTHS, dtype, head_dim=head_dim)
    found = attend(qkv)
    assert (found.dtype, found.shape) == (dtype, qkv[:, 0].shape)
    assert found.is_contiguous()
    assert_close(found, reference(*qkv.unbind(1), LENGTHS))


@heads_of
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_with_alibi_it_equals_attention_in_fp64(dtype, head_dim):
    qkv = random_qkv(LENGTHS, dtype, head_dim=head_dim)
    found = attend(qkv, slopes=torch.tensor(SLOPES, device="cuda"))
    assert_close(found, reference(*qkv.unbind(1), LENGTHS, SLOPES))


def test_padded_heads_give_what_the_heads_gave():
    qkv = random_qkv(LENGTHS, torch.float16, head_dim=24)
    found = attend(F.pad(qkv, (0, 8)), scaled_dim=24)
    assert_close(found[..., :24], reference(*qkv.unbind(1), LENGTHS))
    assert not found[..., 24:].any()


@heads_of
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_queries_are_rotated_on_the_way_and_keys_are_not(dtype, head_dim):
    qkv = random_qkv(LENGTHS, dtype, head_dim=head_dim)
    cos, sin = turns(LENGTHS, head_dim)
    before = qkv.clone()
    found = attend(qkv, cos, sin)
    assert torch.equal(qkv, before)
    q, k, v = qkv.unbind(1)
    assert_close(found, reference(rotate(q, cos, sin), k, v, LENGTHS))


@heads_of
@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_triton_kernel_on_packs_of_random_lengths(seed, head_dim):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 400, (60,), generator=generator).tolist()
    qkv = random_qkv(lengths, torch.float16, seed, head_dim)
    cos, sin = turns(lengths, head_dim)
    q, k, v = qkv.unbind(1)
    tiles = tiles_of(bounds(lengths).cuda(), len(qkv))
    expected = varlen_attention(rotate(q, cos, sin), k, v, tiles, None)
    found = attend(qkv, cos, sin, lengths)
    assert (found - expected).abs().max() < 4e-3
    assert (found.float() - expected.float()).norm() / expected.float().norm() < 5e-4


def test_the_same_pack_gives_the_same_result_bit_for_bit():
    qkv = random_qkv(LENGTHS, torch.float16)
    cos, sin = turns(LENGTHS)
    first = attend(qkv, cos, sin)
    assert all(torch.equal(attend(qkv, cos, sin), first) for _ in range(20))


@heads_of
@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("parts", [[0], [1], [2], [0, 1, 2]], ids=["q", "k", "v", "all"])
def test_segments_that_are_not_finite_leave_their_neighbours_exactly_as_they_are(
    parts, dtype, amount, head_dim
):
    """Every other segment, the first among them, then the last: what a block brings in."""
    qkv = random_qkv(LENGTHS, dtype, head_dim=head_dim)
    cos, sin = turns(LENGTHS, head_dim)
    expected = attend(qkv, cos, sin).split(LENGTHS)
    for odd in (0, 1):
        given = qkv.clone()
        for segment in given.split(LENGTHS)[odd::2]:
            segment[:, parts] = amount
        found = attend(given, cos, sin).split(LENGTHS)
        assert not any(part.isfinite().any() for part in found[odd::2])
        whole = range(1 - odd, len(LENGTHS), 2)
        assert all(torch.equal(found[n], expected[n]) for n in whole)


@pytest.mark.parametrize("rotary", [False, True], ids=["as it is", "rotated"])
@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("broken", range(2), ids=["q", "k"])
def test_a_token_whose_query_or_key_is_not_finite_is_nan(broken, dtype, amount, rotary):
    """All other products are above 0: a score of -Inf would be a weight of 0."""
    shape = sum(LENGTHS), 3, HEADS, HEAD_DIM
    qkv = torch.rand(shape, device="cuda").to(dtype)
    given = turns(LENGTHS) if rotary else (None, None)
    expected = attend(qkv, *given)
    places = bounds(LENGTHS)[:-1] + torch.tensor(LENGTHS) // 2
    odd = places[::2]  # in every other segment
    qkv[odd, broken, 1, 3] = amount
    found = attend(qkv, *given)
    assert found[odd, 1].isnan().all()
    whole = [head for head in range(HEADS) if head != 1]
    assert torch.equal(found[:, whole], expected[:, whole])
    neighbours = zip(found.split(LENGTHS)[1::2], expected.split(LENGTHS)[1::2], strict=True)
    assert all(torch.equal(one, other) for one, other in neighbours)


def test_an_infinite_value_that_weighs_nothing_is_nan():
    """0 times Inf: the weight is too small for FP16, and would be more than 0 in FP32."""
    qkv = torch.rand(100, 3, HEADS, HEAD_DIM, device="cuda").half()
    qkv[5, 1] *= -100.0
    qkv[5, 2, 1, 3] = torch.inf
    found = attend(qkv, lengths=[70, 30])
    assert not found[:70, 1, 3].isfinite().any()
    assert found[70:].isfinite().all()


def test_a_query_that_overflows_when_it_is_rotated_is_nan():
    qkv = random_qkv(LENGTHS, torch.float16)
    cos, sin = turns(LENGTHS)
    qkv[40, 0, 1] = 6e4
    sin[40], cos[40] = 2**-0.5, 2**-0.5
    found = attend(qkv, cos, sin)
    assert found[40, 1].isnan().all()
    assert found[:40].isfinite().all()


def test_large_scores_do_not_overflow():
    qkv = random_qkv(LENGTHS, torch.float16)
    qkv[:, :2] *= 200  # scores of several 100,000
    assert attend(qkv).isfinite().all()


def test_a_pack_may_hold_more_values_than_32_bits_can_count():
    length, count = 1000, 600
    qkv = torch.randn(length * count, 3, 20, HEAD_DIM, device="cuda", dtype=torch.float16)
    assert qkv.numel() > 2**31
    cos, sin = turns([length])
    found = attend(qkv, cos.repeat(count, 1, 1), sin.repeat(count, 1, 1), [length] * count)
    q, k, v = qkv[-length:].unbind(1)
    last = attention(*(t.double() for t in (rotate(q, cos, sin), k, v)), [0.0] * 20)
    assert (found[-length:] - last).abs().max() < 1e-2


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it is a prototype, it says
def test_it_never_waits_for_the_device():
    qkv = random_qkv(LENGTHS, torch.float16)
    tiles = tiles_of(bounds(LENGTHS).cuda(), len(qkv))
    torch.cuda.set_sync_debug_mode("error")
    try:
        hopper_attention(qkv.flatten(1), HEADS, tiles)
    finally:
        torch.cuda.set_sync_debug_mode("default")
