"""Options and checks that several commands share."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.token import Token

from common.errors import UserError
from common.installing import how_to_install
from common.local.gpus import visible_gpus, why_no_gpu
from common.paths import user_path

log = logging.getLogger("workers")


def to_path(_type: Any, tokens: Sequence[Token]) -> Path:
    return user_path(tokens[0].value)


#: A path in which ``~`` is the home folder.
UserPath = Annotated[Path, Parameter(converter=to_path)]


def require_torch() -> None:
    if find_spec("torch") is None:
        raise UserError(f"A worker needs PyTorch: {how_to_install('worker')}")


def chosen_gpus(choice: str) -> list[str]:
    """Return the GPUs that ``--gpus`` names; an empty list means the CPU.

    Raises:
        UserError: this machine does not have one of the GPUs.
    """
    found = visible_gpus()
    if choice == "none":
        return []
    if choice == "all":
        if not found:
            log.warning("No NVIDIA GPU here (%s): using the CPU.", why_no_gpu())
        return found
    if choice == "required":
        if not found:
            raise UserError(
                f"--gpus required: no NVIDIA GPU here ({why_no_gpu()}). Give this worker one, or "
                "--gpus none for the CPU."
            )
        return found
    asked = [gpu.strip() for gpu in choice.split(",")]
    missing = [gpu for gpu in asked if gpu not in found]
    if missing:
        raise UserError(
            f"--gpus {choice}: this machine has no GPU {', '.join(missing)} "
            f"(it has: {', '.join(found) or 'none'})."
        )
    return asked
