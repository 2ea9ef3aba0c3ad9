"""Rotary position embedding (Su et al. 2021)."""

import torch
from torch import Tensor

from workers.models.attention.attention import nan_beyond
from workers.models.exact_buffers import ExactBuffers


class RotaryEmbedding(ExactBuffers):
    """Angles of rotary position embedding (Su et al. 2021), in FP32 whatever the model's dtype.

    The frequencies of the checkpoints were rounded in training and are part of the weights:
    computing them again, or rounding them again, would change the trained model.
    """

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("inv_freq", exact_inv_freq(head_dim).to(torch.get_default_device()))

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines ``[T, 1, Dh / 2]`` (FP32) of ``positions`` ``[T]``."""
        angles = torch.outer(positions.float(), self.inv_freq)[:, None, :]
        return angles.cos(), angles.sin()


def exact_inv_freq(head_dim: int) -> Tensor:
    """Return the frequencies by their formula, ``10000^(-2i / head_dim)``: ``[head_dim / 2]``."""
    even = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu")
    return 1.0 / (10000 ** (even / head_dim))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of every head ``[..., T, H, Dh]`` (NeoX style) in FP32.

    Values beyond the range of ``x.dtype`` become NaN.
    """
    a, b = x.float().chunk(2, dim=-1)
    rotated = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return nan_beyond(rotated, x.dtype).to(x.dtype)


def positions_in(cu_seqlens: Tensor, total: int) -> Tensor:
    """Return each token's position in its segment ``[T]``, without waiting for the device.

    Args:
        cu_seqlens: ``[N + 1]``, where each segment starts; the last entry is ``total``.
        total: T, tokens of all segments.
    """
    segment = torch.repeat_interleave(cu_seqlens.diff(), output_size=total)
    return torch.arange(total, device=cu_seqlens.device) - cu_seqlens[:-1][segment]
