"""Projections of attention whose heads are padded with zeros to a width that kernels load fast.

ESM-2 35M has heads of 24. Rows of 24 values lie at places that cannot be loaded 16 bytes at a time,
so that attention over them takes 2.5 times as long as over heads of 32. Zeros add nothing to a
score, and the values that they give are zero. Both halves of a head are padded, so that rotary
embedding still turns the first against the second.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.kernels.attention import padded_dim


def pad_halves(x: Tensor, head_dim: int) -> Tensor:
    """Return ``[..., H * Dh]`` with zeros after each half of each head: ``[..., H * P]``."""
    missing = padded_dim(head_dim) - head_dim
    return F.pad(x.unflatten(-1, (-1, head_dim // 2)), (0, missing // 2)).flatten(-2)


def padded_qkv(qkv: nn.Linear, head_dim: int) -> nn.Linear:
    """Return a projection whose output has padded heads; itself if there is nothing to pad."""
    if padded_dim(head_dim) == head_dim:
        return qkv
    bias = None if qkv.bias is None else pad_halves(qkv.bias, head_dim)
    return linear(pad_halves(qkv.weight.t(), head_dim).t(), bias)


def padded_out(out: nn.Linear, head_dim: int) -> nn.Linear:
    """Return a projection that reads padded heads; itself if there is nothing to pad."""
    if padded_dim(head_dim) == head_dim:
        return out
    return linear(pad_halves(out.weight, head_dim), out.bias)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return a layer with these weights, in evaluation mode."""
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    state = {"weight": weight.contiguous()} | ({} if bias is None else {"bias": bias})
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)
