"""The fast path: a view of a model whose blocks take fewer passes over memory.

On a GPU, in half precision, a block is a few kernels. The weights and the arithmetic are those of
the plain blocks of ``esm2`` and ``dnabert_s``, in another order:

- the stream is changed in place: the matrix products of ``out`` and ``fc2`` add to it;
- their biases are not added to the stream, which would take another pass over it; the LayerNorm
  that reads the stream next adds them;
- the GELU of ESM-2 is part of the matrix product of ``fc1``, in its tanh form (Hendrycks and
  Gimpel 2016), which differs from the exact GELU by up to 5e-4. Since it is rounded only once, it
  is as close to FP32 as the exact GELU of a rounded number (``benchmarks.kernels``);
- on Hopper GPUs narrow models have one kernel for LayerNorm, the product of ``qkv`` and rotary
  embedding, and one for LayerNorm, ``fc1`` and GELU (``kernels.norm_linear``).

On a CPU, for FP32 and BF16, see ``esm2.cpu``.
"""

import torch

from workers.models.attention.choice import Case, Choice, Kernel, fused_choice
from workers.models.encoder import Encoder
from workers.models.families import CODE_OF
from workers.models.kernels.attention import padded_dim

#: The precisions in which CPUs are fast. FP16 is not one: there, the plain blocks run.
CPU_DTYPES = (torch.float32, torch.bfloat16)


def fastest(model: Encoder) -> Encoder:
    """Return the view of ``model`` on the fast path, for packs alone, or the model itself."""
    on_cpu = CODE_OF[model.spec.family].on_cpu
    if on_cpu is not None and is_fast_on_cpu(model):
        return on_cpu(model)
    found = choice_for(model)
    return model if found is None else apply_fused(model, found.kernel)


def is_fast_on_cpu(model: Encoder) -> bool:
    """Return whether a model is on a CPU, in a precision in which CPUs are fast."""
    weight = next(model.parameters())
    return weight.device.type == "cpu" and weight.dtype in CPU_DTYPES


def choice_for(model: Encoder) -> Choice | None:
    """Return the kernel of attention of the fast path on a GPU; None if there is none."""
    weight = next(model.parameters())
    head_dim = padded_dim(model.head_dim)
    return fused_choice(Case(weight.device, weight.dtype, head_dim, model.spec.family.alibi))


def apply_fused(model: Encoder, kernel: Kernel) -> Encoder:
    """Return the view of ``model`` on the fast path of a GPU, with a kernel of attention."""
    return CODE_OF[model.spec.family].fused(model, kernel)
