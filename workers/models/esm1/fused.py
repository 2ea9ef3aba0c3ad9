"""The fast path of ESM-1b and ESM-1v: that of ESM-2, whose blocks rotate nothing."""

from workers.models.esm1.model import ESM1
from workers.models.esm2.fused import FusedESM2


class FusedESM1(FusedESM2, ESM1):
    """ESM-1b or ESM-1v with fused blocks, whose stream lacks the biases of the blocks before."""
