"""Attention of fused blocks: over one tensor of queries, keys and values."""

from torch import Tensor

from workers.models.attention.choice import Kernel
from workers.models.attention.layouts import Layout, TiledSegments
from workers.models.kernels import hopper
from workers.models.kernels.attention import varlen_attention
from workers.models.kernels.rotary import rotate_in_place


def fused_attention(
    qkv: Tensor,
    heads: int,
    layout: Layout,
    kernel: Kernel,
    turns: tuple[Tensor, Tensor] | None = None,
    scaled_dim: int | None = None,
) -> Tensor:
    """Return attention within each segment, by the Hopper kernel or that of any GPU.

    Args:
        qkv: ``[T, 3 * H * Dh]`` FP16 or BF16, contiguous; what is rotated in it changes.
        heads: H.
        layout: of a pack, in tiles.
        kernel: one of ``choice.fused_choice``.
        turns: cosines and sines ``[T, 1, Dh / 2]`` by which queries and keys are rotated; or None.
        scaled_dim: the width of heads before they were padded; None: they were not.

    Returns:
        ``[T, H * Dh]``.
    """
    assert isinstance(layout, TiledSegments)
    on_hopper = kernel is Kernel.HOPPER
    if turns is not None:
        rotate_in_place(qkv, heads, *turns, keys_only=on_hopper)
    if on_hopper:
        attended = hopper.attention(
            *(qkv, heads, layout.tiles), turns=turns, slopes=layout.slopes, scaled_dim=scaled_dim
        )
    else:
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(-3)  # [T, H, Dh]
        attended = varlen_attention(q, k, v, *layout, scaled_dim)
    return attended.flatten(-2)
