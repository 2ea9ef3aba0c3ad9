"""The kernel that attention of a model runs in on a device, and why, in words."""

from typing import NamedTuple

import torch

from common.model_specs import DNABERT_S, ModelSpec
from workers.models.attention import flash
from workers.models.kernels import attention as own_kernel
from workers.models.kernels import has_matrix_units, hopper, triton


class Choice(NamedTuple):
    """A kernel, and why it is this one."""

    kernel: str
    why: str


def choice_of(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Choice:
    """Return the kernel of attention over packs, as ``packed_layout`` and the fused blocks choose.

    In FP32, which is also the last rung of the ladder, it is always PyTorch's.
    """
    head_dim, alibi = spec.dim // spec.heads, spec.family is DNABERT_S
    if device.type != "cuda":
        return Choice("sdpa", "the CPU has PyTorch's alone")
    if not has_matrix_units(device, dtype):
        return Choice("sdpa", reason_for_none(device, dtype))
    if own_kernel.takes(device, dtype, head_dim):
        if not alibi and hopper.takes(device, dtype, head_dim):
            return Choice("hopper", f"a Hopper GPU, heads of 64, Triton {triton.__version__}")
        return Choice("triton", why_not_hopper(device, head_dim, alibi=alibi))
    missing = "Triton is not installed" if triton is None else f"heads of {head_dim}"
    if flash.can_run(device, dtype, head_dim, alibi=alibi):
        library = "flash_attn" if flash.find_flash_attn() is not None else "torch.varlen"
        return Choice(library, missing)
    return Choice("sdpa", f"{missing}, and no other kernel takes this model")


def reason_for_none(device: torch.device, dtype: torch.dtype) -> str:
    """Return why no kernel of half precision can be used on a GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) < (8, 0):
        return f"compute capability {major}.{minor} is below the 8.0 that the others need"
    return f"{dtype} has no other"


def why_not_hopper(device: torch.device, head_dim: int, *, alibi: bool) -> str:
    """Return why it is the kernel of any GPU and not that of Hopper."""
    major, minor = torch.cuda.get_device_capability(device)
    if major != 9:
        return f"compute capability {major}.{minor}"
    if alibi:
        return "the faster one of Hopper GPUs has no ALiBi"
    if head_dim != hopper.HEAD_DIM:
        return f"the faster one of Hopper GPUs has heads of {hopper.HEAD_DIM}, not of {head_dim}"
    return (
        f"the faster one of Hopper GPUs is tested with Triton {hopper.TESTED_TRITON}x, and this is "
        f"{triton.__version__}"
    )
