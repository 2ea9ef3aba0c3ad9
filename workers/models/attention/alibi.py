"""ALiBi (Press et al. 2022): attention scores minus a slope times the distance of their tokens."""

import torch
from torch import Tensor

from workers.models.exact_buffers import ExactBuffers

#: Queries per call of ``scaled_dot_product_attention`` with biases, so that the memory for biases
#: grows with a segment's length and not with its square.
QUERIES = 256


class Alibi(ExactBuffers):
    """The slopes of all heads ``[H]``, in FP32 whatever the model's dtype."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(heads).to(torch.get_default_device()))


def alibi_slopes(heads: int) -> Tensor:
    """Return one slope per head ``[H]``, FP32, as in the code that Press et al. published.

    ``2 ** (-8 h / H)`` for H a power of two; else the slopes of the next lower power, followed by
    every other slope of the next higher power.
    """
    lower = 1 << (heads.bit_length() - 1)
    steps = [(h + 1) / lower for h in range(lower)]
    steps += [(2 * h + 1) / (2 * lower) for h in range(heads - lower)]
    return torch.exp2(-8 * torch.tensor(steps, dtype=torch.float32, device="cpu"))


def padded_biases(slopes: Tensor, real: Tensor) -> Tensor:
    """Return the biases ``[B, H, T, T]`` of padded sequences, -inf at keys that are padding.

    Args:
        slopes: ``[H]`` FP32.
        real: ``[B, T]`` bool, False at padding.
    """
    position = torch.arange(real.shape[1], device=real.device)
    distance = (position[:, None] - position).abs()  # [T, T]
    bias = -slopes[:, None, None] * distance  # [H, T, T]
    return torch.where(real[:, None, None, :], bias, float("-inf"))


def bias_table(slopes: Tensor, max_seqlen: int) -> Tensor:
    """Return a table of biases, of which the biases of any ``QUERIES`` queries are a view.

    A bias depends only on the distance. Row i, column c of ``[H, QUERIES, 2 C]`` is the bias of
    query i and key c - C, both counted from the first of the queries. C is ``max_seqlen`` rounded
    up to a multiple of ``QUERIES``, which keeps the rows of every view aligned.
    """
    reach = -(-max_seqlen // QUERIES) * QUERIES
    query = torch.arange(QUERIES, device=slopes.device)
    key = torch.arange(-reach, reach, device=slopes.device)
    return -slopes[:, None, None] * (query[:, None] - key).abs()


def biases_of(table: Tensor, queries: int, first: int, length: int) -> Tensor:
    """Return the biases ``[1, H, queries, L]`` of a segment's queries from ``first`` on.

    Args:
        table: ``bias_table``.
        queries: number of queries, at most ``QUERIES``.
        first: position of the first query in the segment.
        length: L, the segment's tokens.
    """
    origin = table.shape[2] // 2 - first
    return table[None, :, :queries, origin : origin + length]
