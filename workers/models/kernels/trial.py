"""Trials of kernels on small inputs, against plain PyTorch in FP32."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.memory import is_out_of_memory
from workers.models.attention import flash
from workers.models.kernels import attention as own_kernel
from workers.models.kernels import hopper
from workers.models.kernels.embedding import scaled_embedding
from workers.models.kernels.gate import gelu_gate, silu_gate
from workers.models.kernels.norm import layer_norm
from workers.models.kernels.norm_linear import norm_linear_gelu, norm_linear_rotate
from workers.models.kernels.rotary import rotate_in_place

#: Tokens of the segments of a trial: around the edges of tiles, unordered.
LENGTHS = (65, 1, 64, 200, 7)

HEADS = 2

#: The largest norm of a result's error, relative to the result's: several times what rounding
#: leaves, and far below what a kernel that is wrong gives.
LARGEST_ERROR = {torch.float16: 4e-3, torch.bfloat16: 3e-2}


class Trial(NamedTuple):
    """One computation, by a kernel and by plain PyTorch."""

    name: str
    kernel: Callable[[], Tensor]
    expected: Callable[[], Tensor]


@torch.inference_mode()
def failure(trial: Trial, dtype: torch.dtype) -> str | None:
    """Return why a kernel cannot be used, in words; None if it agrees with PyTorch.

    Raises:
        Exception: there is no memory for the trial, which says nothing of the kernel.
    """
    try:
        found = trial.kernel().float()
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        text = (str(error).strip().splitlines() or [""])[-1][:200]
        return f"{trial.name} fails here ({type(error).__name__}: {text})"
    expected = trial.expected().float()
    off = float((found - expected).norm() / expected.norm())
    if off <= LARGEST_ERROR[dtype]:  # not if it is NaN
        return None
    return f"{trial.name} gives other numbers than PyTorch here (off by {off:.2g} of their norm)"


@cache
def pointwise_failure(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why the kernels besides attention cannot be used; None if all of them work."""
    found = (failure(trial, dtype) for trial in pointwise_trials(device, dtype))
    return next((reason for reason in found if reason is not None), None)


def pointwise_trials(device: torch.device, dtype: torch.dtype) -> Iterator[Trial]:
    generator = torch.Generator(device).manual_seed(0)
    x = torch.randn(33, 192, generator=generator, device=device)  # exact in no half precision
    half = x.to(dtype)
    norm = nn.LayerNorm(192, device=device, dtype=dtype)
    plus = torch.full((192,), 0.5, device=device)
    yield Trial(
        "LayerNorm",
        lambda: layer_norm(half, norm, plus),
        lambda: F.layer_norm(half.float() + plus, (192,), eps=norm.eps),
    )
    tokens, scale = torch.arange(40, device=device) % 33, torch.linspace(0, 2, 40, device=device)
    yield Trial(
        "the scaled embedding",
        lambda: scaled_embedding(tokens, half, scale),
        lambda: half.float()[tokens] * scale[:, None],
    )
    yield Trial("the gated GELU", lambda: gelu_gate(half), lambda: gated(F.gelu, half.float()))
    yield Trial("the gated SiLU", lambda: silu_gate(half), lambda: gated(F.silu, half.float()))
    cos, sin = turns(33, 32, device)

    def rotated() -> Tensor:
        own = half.clone()
        rotate_in_place(own, 2, cos, sin)
        return own

    def expected() -> Tensor:
        q, k, v = half.float().unflatten(-1, (3, 2, 32)).unbind(-3)
        return torch.stack((turned(q, cos, sin), turned(k, cos, sin), v), -3).flatten(-3)

    yield Trial("rotary embedding", rotated, expected)


@cache
def norm_linear_failure(
    device: torch.device, dtype: torch.dtype, dim: int, heads: int, head_dim: int
) -> str | None:
    """Return why LayerNorm and a linear layer cannot be one kernel; None if they can."""
    trials = norm_linear_trials(device, dtype, dim, heads, head_dim)
    found = (failure(trial, dtype) for trial in trials)
    return next((reason for reason in found if reason is not None), None)


def norm_linear_trials(
    device: torch.device, dtype: torch.dtype, dim: int, heads: int, head_dim: int
) -> Iterator[Trial]:
    """Yield trials of both kernels for a block of a model, on more rows than a tile has."""
    generator = torch.Generator(device).manual_seed(0)
    rows = sum(LENGTHS)
    x = torch.randn(rows, dim, generator=generator, device=device).to(dtype)
    plus = torch.full((dim,), 0.5, device=device)
    norm = nn.LayerNorm(dim, device=device, dtype=dtype)
    qkv = nn.Linear(dim, 3 * heads * head_dim, device=device, dtype=dtype)
    fc1 = nn.Linear(dim, 4 * dim, device=device, dtype=dtype)
    given = turns(rows, head_dim, device)

    def exact(linear: nn.Linear) -> Tensor:
        normed = F.layer_norm(x.float() + plus, (dim,), eps=norm.eps)
        return F.linear(normed, linear.weight.float(), linear.bias.float())

    def rotated() -> Tensor:
        q, k, v = exact(qkv).unflatten(-1, (3, heads, head_dim)).unbind(-3)
        return torch.stack((turned(q, *given), turned(k, *given), v), -3).flatten(-3)

    yield Trial(
        "LayerNorm, a product and rotary embedding",
        lambda: norm_linear_rotate(x, norm, plus, qkv, heads, given),
        rotated,
    )
    yield Trial(
        "LayerNorm, a product and GELU",
        lambda: norm_linear_gelu(x, norm, plus, fc1),
        lambda: F.gelu(exact(fc1)),
    )


def attention_failure(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int, alibi: bool
) -> str | None:
    """Return why a kernel of attention cannot be used; None if it works.

    Args:
        name: a ``workers.models.attention.choice.Kernel``.
    """
    generator = torch.Generator(device).manual_seed(0)
    total = sum(LENGTHS)
    shape = total, 3 * HEADS * head_dim
    qkv = torch.randn(shape, generator=generator, device=device).to(dtype)
    slopes = torch.tensor([0.5, 0.03], device=device) if alibi else None
    with_turns = name == "hopper" and not alibi
    given = turns(total, head_dim, device) if with_turns else None
    trial = Trial(
        "attention",
        lambda: attend(name, qkv, given, slopes),
        lambda: exact_attention(qkv.float(), given, slopes),
    )
    return failure(trial, dtype)


def attend(
    name: str, qkv: Tensor, given: tuple[Tensor, Tensor] | None, slopes: Tensor | None
) -> Tensor:
    """Return attention by a kernel: ``[T, H, Dh]``."""
    cu_seqlens = torch.tensor((0, *LENGTHS), device=qkv.device).cumsum(0).int()
    tiles = own_kernel.tiles_of(cu_seqlens, len(qkv))
    if name == "hopper":
        return hopper.attention(qkv, HEADS, tiles, turns=given, slopes=slopes)
    q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).unbind(-3)
    if name == "triton":
        return own_kernel.varlen_attention(q, k, v, tiles, slopes)
    more = {} if slopes is None else {"alibi_slopes": slopes}
    longest = max(LENGTHS)
    bounds = cu_seqlens, cu_seqlens, longest, longest
    return flash.kernel_named(name)(q, k, v, *bounds, **more)


def exact_attention(
    qkv: Tensor, given: tuple[Tensor, Tensor] | None, slopes: Tensor | None
) -> Tensor:
    """Return attention by its formula in FP32: ``[T, H, Dh]``."""
    q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).unbind(-3)
    if given is not None:
        q = turned(q, *given)
    segments = zip(q.split(LENGTHS), k.split(LENGTHS), v.split(LENGTHS), strict=True)
    return torch.cat([exact_segment(q, k, v, slopes) for q, k, v in segments])


def exact_segment(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None) -> Tensor:
    scores = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
    if slopes is not None:
        position = torch.arange(len(q), device=q.device)
        scores -= slopes[:, None, None] * (position[:, None] - position).abs()
    return torch.einsum("hij,jhd->ihd", scores.softmax(-1), v)


def turns(total: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines ``[T, 1, Dh / 2]`` of some angles."""
    angles = torch.linspace(0, 3, total * head_dim // 2, device=device).view(total, 1, -1)
    return angles.cos(), angles.sin()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return FP32 heads ``[T, H, Dh]`` with both halves rotated (NeoX style)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def gated(activation: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    gate, values = hidden.chunk(2, dim=-1)
    return activation(gate) * values
