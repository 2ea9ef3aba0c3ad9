"""The finiteness check of all embeddings, and the description of rows that fail it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.rungs import Rung
from common.wire.messages import Instability, NonFinite

#: Number of rows that a message names; the others are counted.
SHOWN = 3


def describe_instability(where: str, unstable: Sequence[Instability], after: Rung | None) -> str:
    """Return the message on rows that are not finite; ``after`` is the rung that retries them."""
    named = ". ".join(map(str, unstable[:SHOWN]))
    more = f". And {len(unstable) - SHOWN:,} more" if len(unstable) > SHOWN else ""
    what_next = (
        "FP32 is the last rung: look at these sequences and at the weights."
        if after is None
        else f"The next rung is {after}. To see whether half precision is the cause, compute "
        "everything in FP32: set VIRNUCPRO_DISABLE_FP16=1."
    )
    return f"Numerical instability in {where}: {named}{more}. {what_next}"


def describe_non_finite(values: Tensor) -> NonFinite | None:
    """Describe what is not finite in a tensor; None if all is finite. Waits for the device."""
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return None
    rest = values[finite]
    return NonFinite(
        nan=int(torch.isnan(values).sum()),
        inf=int(torch.isinf(values).sum()),
        finite_min=float(rest.min()) if rest.numel() else None,
        finite_max=float(rest.max()) if rest.numel() else None,
    )


def merge_non_finite(parts: Sequence[NonFinite]) -> NonFinite:
    """Merge the descriptions of several tensors into one."""
    lows = [part.finite_min for part in parts if part.finite_min is not None]
    highs = [part.finite_max for part in parts if part.finite_max is not None]
    return NonFinite(
        nan=sum(part.nan for part in parts),
        inf=sum(part.inf for part in parts),
        finite_min=min(lows, default=None),
        finite_max=max(highs, default=None),
    )


def finite_segments(sums: Tensor) -> Tensor:
    """Return which segments are finite ``[N]`` bool, from the sums over their tokens ``[N, ...]``.

    An FP32 sum is finite exactly if all its FP16 terms are: NaN and Inf survive addition, and 65504
    times a segment's length is far below FP32's limit.
    """
    return torch.isfinite(sums).flatten(1).all(1)
