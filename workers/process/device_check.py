"""Checks of the device that a worker on this machine would compute on."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

from common.checks.check import Check, failed, ok, warning
from common.errors import UserError
from common.installing import how_to_install
from common.local.gpus import why_no_gpu
from common.model_source import ModelSource
from common.model_specs import MODELS, ModelSpec
from common.rungs import should_use_fp16

#: The model whose heads decide on the kernel if none is named: the default of the commands.
DEFAULT_MODEL = "esm2_t33_650M_UR50D"

#: Seconds that the driver has to answer.
DRIVER_SECONDS = 20

#: What is asked of the driver of each GPU.
QUERY = "index,name,driver_version,memory.total,memory.free,compute_cap"


def check_device(model: ModelSource | None) -> Iterator[Check]:
    """Look at the GPUs as the driver and as PyTorch see them, and at the kernel of attention."""
    gpus = listed_gpus()
    yield from gpus
    if find_spec("torch") is None:
        yield failed("torch", "PyTorch is not installed", how_to_install("worker"))
        return
    yield from as_torch_sees_it(known_shape(model), has_gpus=bool(gpus))


def known_shape(model: ModelSource | None) -> ModelSpec:
    if model is not None:
        with suppress(UserError):  # which the check of the weights says
            return model.spec() or MODELS[DEFAULT_MODEL]
    return MODELS[DEFAULT_MODEL]


def listed_gpus() -> list[Check]:
    """Return a check for each GPU that the driver lists; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=DRIVER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return [failed("gpu", f"the driver does not answer in {DRIVER_SECONDS} s", "see dmesg")]
    if answer.returncode != 0:
        why = (answer.stdout + answer.stderr).strip().splitlines() or ["no reason given"]
        return [failed("gpu", f"nvidia-smi: {why[0]}", "see whether driver and library fit")]
    return [described(line) for line in answer.stdout.splitlines() if line.strip()]


def described(line: str) -> Check:
    """Return the check of a GPU, from a line of ``nvidia-smi``."""
    index, name, driver, total, free, capability = (part.strip() for part in line.split(","))
    return ok(
        f"gpu {index}",
        f"{name}, driver {driver}, compute capability {capability}, {free} of {total} MiB free",
    )


def as_torch_sees_it(spec: ModelSpec, *, has_gpus: bool) -> Iterator[Check]:
    import torch

    version = f"PyTorch {torch.__version__}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.cuda.is_available():
        yield ok("torch", f"{version} with CUDA {torch.version.cuda}")
        for index in range(torch.cuda.device_count()):
            yield attention("cuda", index, spec)
        return
    if has_gpus and hidden is not None and hidden in ("", "-1"):
        yield warning("torch", f"{version}: CUDA_VISIBLE_DEVICES hides all GPUs", "unset it")
    elif has_gpus:
        why = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
        yield failed(
            "torch",
            f"{version}, built {why}, cannot use the GPU of this machine",
            "install PyTorch for the version of CUDA that nvidia-smi names, or a newer driver",
        )
    else:
        threads = f"{torch.get_num_threads()} threads on {platform.machine()}"
        yield warning(
            "torch",
            f"{version}: no NVIDIA GPU here ({why_no_gpu()}), so that a worker uses the CPU, "
            f"{threads}",
            "if there should be one, see nvidia-smi, and how the container is given its GPU",
        )
    yield attention("cpu", 0, spec)


def attention(kind: str, index: int, spec: ModelSpec) -> Check:
    """Return the check of the kernel that attention of a model runs in."""
    import torch

    from workers.models.attention.choice import choice_of

    on_gpu = kind == "cuda"
    half = on_gpu and should_use_fp16()
    device = torch.device(kind, index) if on_gpu else torch.device(kind)
    found = choice_of(spec, device, torch.float16 if half else torch.float32)
    name = f"attention {index}" if on_gpu else "attention"
    text = f"{spec.name} in {'FP16' if half else 'FP32'}: {found.kernel} ({found.why})"
    if half and found.kernel == "sdpa":
        return warning(name, text, "one sequence after another: several times slower")
    return ok(name, text)
