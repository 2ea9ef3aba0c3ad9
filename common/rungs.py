"""The precision ladder's steps, and the one place that decides whether FP16 may be used."""

import logging
import os
from enum import StrEnum
from typing import Literal

log = logging.getLogger(__name__)


class Rung(StrEnum):
    """A step of the precision ladder; also the precision in which a row was computed.

    The two may differ: a worker whose model is in FP32 computes every rung in FP32, and records
    that for each row.
    """

    FP16 = "fp16"
    BF16 = "bf16"
    SELECTIVE_FP32 = "selective_fp32"
    FP32 = "fp32"


#: The code of each row's precision in a file; ``none`` marks a row without an embedding. The codes
#: are part of the file format: new ones are added at the end.
PRECISION_CODES: dict[str, int] = {"none": 0, "fp16": 1, "bf16": 2, "selective_fp32": 3, "fp32": 4}

#: The values of ``--precision``, of the producer and of the worker.
PrecisionChoice = Literal["auto", "fp16", "bf16", "fp32"]

#: The rungs at which a job may start.
FIRST_RUNGS = (Rung.FP16, Rung.BF16, Rung.FP32)

#: The rung at which rows that are not finite are tried next. BF16 has the range of FP32, so
#: selective FP32 would not help it; after FP32 there is none.
NEXT_RUNG: dict[Rung, Rung | None] = {
    Rung.FP16: Rung.SELECTIVE_FP32,
    Rung.BF16: Rung.FP32,
    Rung.SELECTIVE_FP32: Rung.FP32,
    Rung.FP32: None,
}


def should_use_fp16() -> bool:
    """Return whether half precision is allowed.

    ``VIRNUCPRO_DISABLE_FP16`` (1, true or yes) forbids it, whatever other settings say.
    """
    value = os.environ.get("VIRNUCPRO_DISABLE_FP16", "").strip().lower()
    disabled = value in {"1", "true", "yes"}
    if value not in {"1", "true", "yes", "0", "false", "no", "off", ""}:
        log.warning(
            "VIRNUCPRO_DISABLE_FP16=%s is not one of 1, true, yes, 0, false, no, off: ignored.",
            value,
        )
    if disabled:
        log.warning(
            "VIRNUCPRO_DISABLE_FP16 is set: everything is computed in FP32. This is a diagnostic "
            "mode, several times slower on a GPU."
        )
    return not disabled


def first_rung(choice: PrecisionChoice) -> Rung:
    """Return the rung at which a job's batches start."""
    if choice == "fp32" or not should_use_fp16():
        return Rung.FP32
    return Rung.BF16 if choice == "bf16" else Rung.FP16


def model_precision(choice: PrecisionChoice, *, on_gpu: bool) -> Rung:
    """Return the precision of a worker's weights: by default FP16 on a GPU and FP32 on a CPU.

    CPUs multiply FP16 matrices 35 to 175 times slower than FP32 ones, BF16 ones up to 4 times
    faster.
    """
    rung = first_rung(choice)
    return Rung.FP32 if choice == "auto" and not on_gpu else rung


def ladder(first: Rung) -> tuple[Rung, ...]:
    """Return the rungs from ``first`` to the last."""
    after = NEXT_RUNG[first]
    return (first,) if after is None else (first, *ladder(after))


def served_steps(precision: Rung) -> list[tuple[Rung, Rung]]:
    """Return the batches that a worker takes, as pairs of their job's first rung and their rung.

    A worker with weights in FP32 serves all jobs; one with rounded weights only the jobs of its own
    ladder, as a job that starts in FP32 must not see rounded weights. Retries come before new
    batches, so that jobs finish one after the other.
    """
    firsts = FIRST_RUNGS if precision is Rung.FP32 else (precision,)
    steps = [(first, rung) for first in firsts for rung in ladder(first)]
    return sorted(steps, key=lambda step: ladder(step[0]).index(step[1]), reverse=True)
