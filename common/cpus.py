"""The CPUs that this process may use, and the threads of its children that follow from them.

BLAS, OpenMP and the tokenizers start a thread for each CPU of the host. In a container that may use
two of 64, they take turns on these two, and each pass takes several times as long.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

#: Where the groups of Linux are mounted, and the file that names those of this process.
CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

#: Numbers of threads that libraries read when they are loaded. MKL and OpenBLAS follow OpenMP's.
OPENMP, BLAS, TOKENIZERS = (
    "OMP_NUM_THREADS",
    ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    "RAYON_NUM_THREADS",
)


def thread_variables(
    environment: Mapping[str, str], processes: int, cpus: float, host_cpus: int
) -> dict[str, str]:
    """Return the variables that give each process its share of threads.

    Args:
        environment: what the user set in it stays as it is.
        processes: of this worker, which share the CPUs.
        cpus: that the worker may use.
        host_cpus: CPUs of the machine, by which libraries would count their threads.
    """
    threads = max(1, int(cpus / processes))
    if threads >= host_cpus:  # libraries know better, such as which CPUs share a core
        return {}
    names = [OPENMP, TOKENIZERS]
    if OPENMP not in environment:
        names += BLAS
    return {name: str(threads) for name in names if name not in environment}


def usable_cpus(groups: Path = CGROUPS, own_groups: Path = OWN_GROUPS) -> float:
    """Return the number of CPUs that this process may use, by its affinity and its groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(allowed or 1, group_cpus(groups, own_groups))


def group_cpus(groups: Path, own_groups: Path) -> float:
    """Return the least number of CPUs that a group of this process allows; infinity for no limit.

    Version 1 of the groups and version 2 are read, also both at once.
    """
    limits = [float("inf")]
    with suppress(OSError, ValueError):
        for line in own_groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                limits += map(limit_of_v2, folders(groups, path))
            elif "cpu" in controllers.split(","):
                for mount in (controllers, "cpu"):
                    limits += map(limit_of_v1, folders(groups / mount, path))
    return min(limits)


def folders(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folders of a group and of those around it.

    In a container the path may be that of the host, where its own group is the mount itself.
    """
    for group in (PurePosixPath(path), *PurePosixPath(path).parents):
        yield mount / str(group).lstrip("/")


def limit_of_v2(folder: Path) -> float:
    """Return the CPUs that ``cpu.max`` allows, such as ``150000 100000`` or ``max 100000``."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    return float("inf")


def limit_of_v1(folder: Path) -> float:
    """Return the CPUs that ``cpu.cfs_quota_us`` allows, which is -1 for no limit."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else float("inf")
    return float("inf")
