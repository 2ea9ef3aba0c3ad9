"""The check that every embedding passes before it leaves the fleet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common.rungs import Rung
from common.wire.messages import Instability, NonFinite

#: Rows that a message names; the rest are counted.
SHOWN = 3


def describe_instability(where: str, unstable: Sequence[Instability], after: Rung | None) -> str:
    """What a user should know of rows that are not finite; ``after`` is the rung they go on to."""
    named = ". ".join(map(str, unstable[:SHOWN]))
    more = f". And {len(unstable) - SHOWN:,} more" if len(unstable) > SHOWN else ""
    what_next = (
        "FP32 is the last rung: look at these sequences and at the weights."
        if after is None
        else f"The next rung is {after}. To see whether half precision is the cause, compute "
        "everything in FP32: set VIRNUCPRO_DISABLE_FP16=1."
    )
    return f"Numerical instability in {where}: {named}{more}. {what_next}"


def look_at(values: Tensor) -> NonFinite | None:
    """What is not finite in a tensor of any shape; None if all is. Waits for the device."""
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


def sum_up(parts: Sequence[NonFinite]) -> NonFinite:
    """What was seen of several tensors, as of one."""
    lows = [part.finite_min for part in parts if part.finite_min is not None]
    highs = [part.finite_max for part in parts if part.finite_max is not None]
    return NonFinite(
        nan=sum(part.nan for part in parts),
        inf=sum(part.inf for part in parts),
        finite_min=min(lows, default=None),
        finite_max=max(highs, default=None),
    )


def finite_segments(sums: Tensor) -> Tensor:
    """Which segments are finite, ``[N]`` bool, from the sums over their tokens ``[N, ...]``.

    A sum in FP32 is finite exactly if every FP16 term is: NaN and Inf survive addition, and
    65504 times a segment's length is far from FP32's limit.
    """
    return torch.isfinite(sums).flatten(1).all(1)
