"""``worker validate``: half precision against FP32, packed against padded, on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DeviceChoice = Literal["auto", "cuda", "cpu"]
HalfChoice = Literal["auto", "fp16", "bf16"]

#: The name of the program in a picture, and the bytes of it by which an earlier one is known.
PROGRAM = "virnucpro-fleet"
PICTURE_SIGNATURE = b"Software\0" + PROGRAM.encode()


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``worker validate``."""

    model: str
    weights: Path | None
    precision: HalfChoice
    device: DeviceChoice
    sequences_per_set: int  # at least 2
    picture: Path | None
    store: str | None
