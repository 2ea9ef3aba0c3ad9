"""The fast path: a view of a model whose blocks take fewer passes over memory.

On a GPU, in half precision, a block is a few kernels. The weights and the arithmetic are those of
the plain blocks of ``esm2`` and ``dnabert_s``, in another order:

- the stream is changed in place: the matrix products of ``out`` and ``fc2`` add to it;
- their biases are not added to the stream, which would take another pass over it; the LayerNorm
  that reads the stream next adds them;
- the GELU of ESM-2 is part of the matrix product of ``fc1``, in its tanh form (Hendrycks and
  Gimpel 2016), which differs from the exact GELU by up to 5e-4. Since it is rounded only once, it
  is as close to FP32 as the exact GELU of a rounded number (``benchmarks.kernels``).

On a CPU, for FP32 and BF16, see ``esm2.cpu``.
"""

import torch

from workers.models.encoder import Encoder
from workers.models.families import CODE_OF
from workers.models.kernels import attention

#: The precisions in which CPUs are fast. FP16 is not one: there, the plain blocks run.
CPU_DTYPES = (torch.float32, torch.bfloat16)


def can_fuse(model: Encoder) -> bool:
    """Return whether the fast path supports this model on its device and in its dtype."""
    weight = next(model.parameters())
    return runs_on_cpu(model) or attention.takes(weight.device, weight.dtype, model.head_dim)


def apply_fused(model: Encoder) -> Encoder:
    """Return a view of ``model`` for packs, not for padded batches."""
    code = CODE_OF[model.spec.family]
    if code.on_cpu is not None and runs_on_cpu(model):
        return code.on_cpu(model)
    return code.fused(model)


def runs_on_cpu(model: Encoder) -> bool:
    """Return whether the fast path of CPUs supports this model."""
    weight = next(model.parameters())
    known = CODE_OF[model.spec.family].on_cpu is not None
    return known and weight.device.type == "cpu" and weight.dtype in CPU_DTYPES
