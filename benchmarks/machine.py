"""The machine that a benchmark runs on, and the timing of runs."""

import gc
import math
import statistics
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import TypeVar

import torch

from workers.runtime.device import DeviceEvent

T = TypeVar("T")

Run = Callable[[], object]


def device_or_exit(name: str) -> torch.device:
    """Return the device, or exit with code 2 and one line if it is a GPU and there is none."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("This benchmark needs an NVIDIA GPU, and PyTorch finds none here.", file=sys.stderr)
        raise SystemExit(2)
    return device


# --- time and memory --------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """The timing of several runs."""

    seconds: list[float]  # of each run
    peak: int  # peak of the bytes that this process allocated on the GPU; 0 on a CPU

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def time_runs(
    run: Run, device: torch.device, repeats: int, most_seconds: float = math.inf
) -> Timing:
    """Time runs that are queued one after another, as in a worker, after one that warms up.

    Args:
        run: the function to time.
        device: the device that it uses.
        repeats: number of runs, if there is time for them.
        most_seconds: seconds after which no run but the first begins.
    """
    run()
    reset_peak(device)
    events = [DeviceEvent(device)]
    end = time.perf_counter() + most_seconds
    while len(events) == 1 or (len(events) <= repeats and time.perf_counter() < end):
        run()
        events.append(DeviceEvent(device))
    events[-1].wait()
    seconds = [later.seconds_since(earlier) for earlier, later in pairwise(events)]
    return Timing(seconds, peak_bytes(device))


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def release() -> None:
    """Free the memory of objects that are no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# --- failures ---------------------------------------------------------------------------------


def attempt(label: str, part: Callable[[], T]) -> T | None:
    """Run one part of a benchmark; if it fails, print the error and return None."""
    try:
        return part()
    except Exception:
        print(f"  {label} FAILED:\n{traceback.format_exc(limit=-4)}", flush=True)
        return None


def reason(error: Exception) -> str:
    """Return an error in at most 120 characters."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder=" …")


# --- versions ---------------------------------------------------------------------------------


def describe_machine(device: torch.device, packages: Iterable[str] = ()) -> str:
    """Return a line with the device, its driver, and the versions of PyTorch and of packages."""
    where = "CPU"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, driver {driver_version()}"
    versions = [describe_package(name) for name in ("triton", *packages)]
    return f"{where}; " + ", ".join(
        [f"torch {torch.__version__}", f"CUDA {torch.version.cuda}", *versions]
    )


def driver_version() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def describe_package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"
