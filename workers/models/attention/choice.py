"""The kernel that attention of packs runs in: the fastest one that works, found by trying.

A kernel may be missing, be written for other GPUs or heads, or fail with a version of its compiler
that it was never run with. So each one that is written for a case computes a small input first
(``workers.models.kernels.trial``), and is used if it agrees with the reference.
"""

import logging
from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from typing import NamedTuple

import torch

from common.model_specs import ModelSpec
from workers.models.attention import flash
from workers.models.kernels import attention as own_kernel
from workers.models.kernels import has_matrix_units, hopper, norm_linear, triton
from workers.models.kernels.trial import (
    attention_failure,
    norm_linear_failure,
    pointwise_failure,
)

log = logging.getLogger(__name__)


class Kernel(StrEnum):
    """What computes the attention of packs."""

    HOPPER = "hopper"  # this project's, in Gluon: fused blocks alone call it
    TRITON = "triton"  # this project's
    FLASH_ATTN = "flash_attn"  # of the package of that name
    TORCH_VARLEN = "torch.varlen"  # FlashAttention of PyTorch
    SDPA = "sdpa"  # PyTorch's, segment by segment


class Case(NamedTuple):
    """What a kernel must be able to compute."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    alibi: bool


class Choice(NamedTuple):
    """A kernel, and why no faster one is used."""

    kernel: Kernel
    why: str


@cache
def packed_choice(case: Case) -> Choice:
    """Return the kernel for queries, keys and values that are tensors of their own.

    In FP32, which is also the last rung of the ladder, it is always PyTorch's.
    """
    if case.device.type != "cuda":
        return Choice(Kernel.SDPA, "the CPU has PyTorch's alone")
    if not has_matrix_units(case.device, case.dtype):
        return Choice(Kernel.SDPA, reason_for_none(case))
    return first_that_works(case, (Kernel.TRITON, Kernel.FLASH_ATTN, Kernel.TORCH_VARLEN))


@cache
def fused_choice(case: Case) -> Choice | None:
    """Return the kernel of fused blocks; None if there can be none, and plain blocks are run.

    Fused blocks share tables of tiles with the Triton kernel, and need the other kernels.
    """
    if packed_choice(case).kernel is not Kernel.TRITON:
        return None
    failure = pointwise_failure(case.device, case.dtype)
    if failure is not None:
        log.warning("The fused blocks are not used: %s", failure)
        return None
    return first_that_works(case, (Kernel.HOPPER, Kernel.TRITON))


@cache
def has_norm_linear(
    device: torch.device, dtype: torch.dtype, dim: int, heads: int, head_dim: int
) -> bool:
    """Return whether fused blocks of this width norm, multiply and rotate in one kernel.

    Heads are as wide as they are padded to.
    """
    if not norm_linear.takes(device, dtype, dim, heads, head_dim):
        return False
    reason = norm_linear_failure(device, dtype, dim, heads, head_dim)
    if reason is not None:
        log.warning("LayerNorm and products stay kernels of their own: %s", reason)
    return reason is None


def choice_of(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Choice:
    """Return the kernel of a model in this dtype."""
    case = Case(device, dtype, spec.dim // spec.heads, spec.family.alibi)
    fused = Case(device, dtype, own_kernel.padded_dim(case.head_dim), case.alibi)
    return fused_choice(fused) or packed_choice(case)


def first_that_works(case: Case, kernels: Iterable[Kernel]) -> Choice:
    """Return the first of some kernels that works; PyTorch's if none does."""
    against: list[str] = []
    for kernel in kernels:
        reason = unfit(kernel, case)
        if reason is None:
            reason = attention_failure(kernel, *case)
            if reason is not None:
                log.warning("The kernel of attention %s is not used: %s", kernel, reason)
        if reason is None:
            return Choice(kernel, "; ".join(against) or "the fastest")
        against.append(f"not {kernel}: {reason}")
    return Choice(Kernel.SDPA, "; ".join(against))


def unfit(kernel: Kernel, case: Case) -> str | None:
    """Return why a kernel is not written for a case, or not installed; None if it may be tried."""
    heads = f"heads of {case.head_dim}"
    match kernel:
        case Kernel.HOPPER | Kernel.TRITON if triton is None:
            return "Triton is not installed"
        case Kernel.HOPPER:
            if torch.cuda.get_device_capability(case.device)[0] != 9:
                return "the GPU is no Hopper"
            if not hopper.takes(case.device, case.dtype, case.head_dim):
                return f"it is not written for {heads}, or Triton has no Gluon"
        case Kernel.TRITON if not own_kernel.takes(case.device, case.dtype, case.head_dim):
            return f"it is not written for {heads}"
        case Kernel.FLASH_ATTN | Kernel.TORCH_VARLEN:
            return flash.unfit(kernel, case.head_dim, alibi=case.alibi)
    return None


def reason_for_none(case: Case) -> str:
    """Return why no kernel of half precision can be used on a GPU."""
    major, minor = torch.cuda.get_device_capability(case.device)
    if (major, minor) < (8, 0):
        return f"compute capability {major}.{minor} is below the 8.0 that the others need"
    return f"{case.dtype} has no other"
