"""The fast path: a view of a half-precision model whose blocks are a few kernels each.

The weights and the arithmetic are those of the plain blocks of ``esm2`` and ``dnabert_s``, in
another order:

- the stream is changed in place: the matrix products of ``out`` and ``fc2`` add to it;
- their biases are not added to the stream, which would take another pass over it; the LayerNorm
  that reads the stream next adds them;
- the GELU of ESM-2 is part of the matrix product of ``fc1``, in its tanh form (Hendrycks and
  Gimpel 2016), which differs from the exact GELU by up to 5e-4. Since it is rounded only once, it
  is as close to FP32 as the exact GELU of a rounded number (``benchmarks.kernels``).
"""

from workers.models.encoder import Encoder
from workers.models.families import CODE_OF
from workers.models.kernels import attention


def can_fuse(model: Encoder) -> bool:
    """Return whether the fast path supports this model on its device and in its dtype."""
    weight = next(model.parameters())
    return attention.takes(weight.device, weight.dtype, model.head_dim)


def apply_fused(model: Encoder) -> Encoder:
    """Return a view of ``model`` for packs, not for padded batches."""
    return CODE_OF[model.spec.family].fused(model)
