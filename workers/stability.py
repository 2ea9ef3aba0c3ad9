"""The check that every embedding passes before it leaves the fleet."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NonFinite:
    """What was seen of a tensor that is not finite everywhere."""

    nan: int
    inf: int
    finite_min: float | None  # None: nothing was finite
    finite_max: float | None

    def __str__(self) -> str:
        span = (
            f"finite values from {self.finite_min:.4g} to {self.finite_max:.4g}"
            if self.finite_min is not None
            else "no finite value"
        )
        return f"{self.nan} NaN, {self.inf} Inf, {span}"


class NumericalInstabilityError(ArithmeticError):
    """An embedding has NaN or Inf in it."""

    def __init__(self, context: str, seen: NonFinite, dtype: torch.dtype) -> None:
        self.seen = seen
        super().__init__(
            f"Numerical instability in {context}: {seen} ({dtype}). To see whether FP16 is the "
            "cause, compute in FP32: set VIRNUCPRO_DISABLE_FP16=1."
        )


def check_numerical_stability(embeddings: Tensor, context: str) -> None:
    """Check that a tensor is finite everywhere; waits for the device.

    Args:
        embeddings: any shape, any floating dtype.
        context: what it is, for the message: batch, row, layer.

    Raises:
        NumericalInstabilityError: with counts of NaN and Inf and the range of what is finite.
    """
    finite = torch.isfinite(embeddings)
    if bool(finite.all()):
        return
    rest = embeddings[finite]
    seen = NonFinite(
        nan=int(torch.isnan(embeddings).sum()),
        inf=int(torch.isinf(embeddings).sum()),
        finite_min=float(rest.min()) if rest.numel() else None,
        finite_max=float(rest.max()) if rest.numel() else None,
    )
    raise NumericalInstabilityError(context, seen, embeddings.dtype)


def finite_segments(sums: Tensor) -> Tensor:
    """Which segments are finite, ``[N]`` bool, from the sums over their tokens ``[N, ...]``.

    A sum in FP32 is finite exactly if every FP16 term is: NaN and Inf survive addition, and
    65504 times a segment's length is far from FP32's limit.
    """
    return torch.isfinite(sums).flatten(1).all(1)
