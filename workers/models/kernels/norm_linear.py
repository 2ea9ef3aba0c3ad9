"""LayerNorm, a linear layer, and rotary embedding or GELU, as one kernel for Hopper GPUs.

For narrow models the product reads and writes memory for as long as it multiplies, so that passes
over memory before and after it cost as much as the product itself (``norm_linear_rows``).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from workers.models.kernels import can_run

try:
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from workers.models.kernels import norm_linear_rows
except (ImportError, AttributeError):  # no Triton, or one with another version of Gluon
    norm_linear_rows = None  # type: ignore[assignment]


class Plan(NamedTuple):
    """What of a processor the kernel uses: of shared memory 192 to 212 KiB of its 227."""

    groups: int  # of four warps, which take turns with the matrix units
    slots: int  # for blocks of 64 rows that are in shared memory, or being loaded
    registers: int  # of a thread in a group; with the next, 504 or 512 for a thread of each warp
    loader_registers: int


#: The plans for widths of the input for which one kernel is faster than separate ones on an H100
#: (``docs/performance.md``): those of ESM-2 8M, 35M and 150M. Wider rows do not fit the registers.
PLANS = {
    320: Plan(groups=3, slots=4, registers=152, loader_registers=56),
    480: Plan(groups=2, slots=3, registers=232, loader_registers=40),
    640: Plan(groups=2, slots=2, registers=232, loader_registers=40),
}

#: Widths of heads that 64 columns hold.
HEAD_DIMS = (16, 32, 64)

#: Number of rows of a group, and of outputs that it computes at a time.
ROWS = 64


def takes(device: torch.device, dtype: torch.dtype, dim: int, heads: int, head_dim: int) -> bool:
    """Return whether the kernel is written for inputs of this dtype and width, and such heads."""
    if norm_linear_rows is None or not can_run(device, dtype):
        return False
    if torch.cuda.get_device_capability(device)[0] != 9:
        return False
    return dim in PLANS and head_dim in HEAD_DIMS and heads * head_dim % ROWS == 0


def norm_linear_rotate(
    x: Tensor,
    norm: nn.LayerNorm,
    plus: Tensor,
    linear: nn.Linear,
    heads: int,
    turns: tuple[Tensor, Tensor],
) -> Tensor:
    """Return ``linear(norm(x + plus))`` with the two halves of queries and keys rotated (NeoX).

    All but the product's operands is FP32.

    Args:
        x: ``[T, D]`` FP16 or BF16, contiguous.
        norm: a LayerNorm over D, with a weight and a bias.
        plus: ``[D]`` FP32.
        linear: from D to queries, keys and values of all heads, ``3 * H * Dh``, with a bias.
        heads: H.
        turns: cosines and sines ``[T, 1, Dh / 2]`` FP32, contiguous.

    Returns:
        ``[T, 3 * H * Dh]``; a row with a value that is not finite is NaN.
    """
    cos, sin = turns
    assert cos.is_contiguous()
    assert sin.is_contiguous()
    half = cos.shape[-1]
    return launch(x, norm, plus, linear, cos, sin, half=half, rotated=4 * heads * half)


def norm_linear_gelu(x: Tensor, norm: nn.LayerNorm, plus: Tensor, linear: nn.Linear) -> Tensor:
    """Return ``gelu(linear(norm(x + plus)))`` with GELU's tanh form; see ``norm_linear_rotate``."""
    return launch(x, norm, plus, linear, None, None, half=0, rotated=0)


def launch(
    x: Tensor,
    norm: nn.LayerNorm,
    plus: Tensor,
    linear: nn.Linear,
    cos: Tensor | None,
    sin: Tensor | None,
    *,
    half: int,
    rotated: int,
) -> Tensor:
    total, dim = x.shape
    outputs = linear.out_features
    plan = PLANS[dim]
    assert x.is_contiguous()
    assert outputs % ROWS == rotated % ROWS == 0, (outputs, rotated)
    out = x.new_empty(total, outputs)
    loaded = math.gcd(dim, 64)  # columns, of at most the 128 bytes that the copy engine arranges
    descriptors = describe(x, loaded), describe(linear.weight, loaded), describe(out, ROWS)
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count
    tiles = -(-total // (plan.groups * ROWS))
    norm_linear_rows.compute[(min(tiles, processors),)](
        *(*descriptors, plus, norm.weight, norm.bias, linear.bias, cos, sin, total, norm.eps),
        dim=dim,
        outputs=outputs,
        half=half,
        rotated=rotated,
        **plan._asdict(),
        num_warps=4,
    )
    return out


def describe(x: Tensor, columns: int) -> "TensorDescriptor":
    """Return a descriptor by which the copy engine copies 64 rows by some columns."""
    block = [ROWS, columns]
    layout = gl.NVMMASharedLayout.get_default_for(block, gl.float16)  # or BF16's
    return TensorDescriptor.from_tensor(x, block, layout)
