"""The precision ladder's steps, and the one place that decides whether FP16 may be used."""

import logging
import os
from enum import StrEnum
from typing import Literal

log = logging.getLogger(__name__)


class Rung(StrEnum):
    """How a batch is asked to be computed; also what a row's numbers were computed in.

    The two differ where the machine knows better: a worker whose model is in FP32 computes every
    rung in FP32, and says so beside each row.
    """

    FP16 = "fp16"
    BF16 = "bf16"
    SELECTIVE_FP32 = "selective_fp32"
    FP32 = "fp32"


#: What stands beside each row of a file; ``none`` marks a row without numbers. The codes are
#: part of the file format: new ones are added at the end.
PRECISION_CODES: dict[str, int] = {"none": 0, "fp16": 1, "bf16": 2, "selective_fp32": 3, "fp32": 4}

#: ``--precision`` of producer and worker.
PrecisionChoice = Literal["auto", "fp16", "bf16", "fp32"]

#: Where a job may start.
FIRST_RUNGS = (Rung.FP16, Rung.BF16, Rung.FP32)

#: Where rows go on that are not finite. BF16 reaches as far as FP32 does, so that only another
#: arithmetic could help it; FP32 has nothing above it.
NEXT_RUNG: dict[Rung, Rung | None] = {
    Rung.FP16: Rung.SELECTIVE_FP32,
    Rung.BF16: Rung.FP32,
    Rung.SELECTIVE_FP32: Rung.FP32,
    Rung.FP32: None,
}


def should_use_fp16() -> bool:
    """Whether half precision is allowed: False if ``VIRNUCPRO_DISABLE_FP16`` is 1, true or yes.

    The variable wins over every other setting.
    """
    value = os.environ.get("VIRNUCPRO_DISABLE_FP16", "").strip().lower()
    disabled = value in {"1", "true", "yes"}
    if value not in {"1", "true", "yes", "0", "false", "no", "off", ""}:
        log.warning("VIRNUCPRO_DISABLE_FP16=%s is not understood: set it to 1 or leave it.", value)
    if disabled:
        log.warning(
            "VIRNUCPRO_DISABLE_FP16 is set: everything is computed in FP32. This is a diagnostic "
            "mode, several times slower on a GPU."
        )
    return not disabled


def first_rung(choice: PrecisionChoice) -> Rung:
    """The rung at which a job's batches start."""
    if choice == "fp32" or not should_use_fp16():
        return Rung.FP32
    return Rung.BF16 if choice == "bf16" else Rung.FP16


def model_precision(choice: PrecisionChoice, *, on_gpu: bool) -> Rung:
    """What a worker's weights are in: FP16 on a GPU, FP32 on a CPU unless asked otherwise.

    CPUs multiply FP16 matrices 35 to 175 times slower than FP32 ones, BF16 ones up to 4 times
    faster.
    """
    rung = first_rung(choice)
    return Rung.FP32 if choice == "auto" and not on_gpu else rung


def ladder(first: Rung) -> tuple[Rung, ...]:
    """The rungs from ``first`` to the last."""
    after = NEXT_RUNG[first]
    return (first,) if after is None else (first, *ladder(after))


def served_steps(precision: Rung) -> list[tuple[Rung, Rung]]:
    """What a worker with weights in ``precision`` takes: first rung of a job, and rung.

    Rounded weights are good for the jobs of their own ladder alone: a job that starts in FP32 is
    to be computed with weights in FP32, which are good for everything. Retries come before new
    batches, as what is begun is to be ended before more is begun.
    """
    firsts = FIRST_RUNGS if precision is Rung.FP32 else (precision,)
    steps = [(first, rung) for first in firsts for rung in ladder(first)]
    return sorted(steps, key=lambda step: ladder(step[0]).index(step[1]), reverse=True)
