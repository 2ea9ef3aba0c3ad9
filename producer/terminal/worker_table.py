"""The table of workers: what each is, how busy it is, and what it computes."""

from collections.abc import Iterable, Mapping
from itertools import groupby

from rich.console import Console

from common.ledger.leases import RENEW_SECONDS
from common.ledger.workers import WorkerInfo
from common.model_source import ModelSource
from common.text import one_line
from producer.terminal.job_view import STAGES
from producer.terminal.tables import print_table

#: Seconds since its last announcement after which a worker counts as silent.
LATE_SECONDS = 1.5 * RENEW_SECONDS

HEADER = ("worker", "tokens/s", "busy", "memory", "batch", "up")


def print_workers(
    console: Console,
    workers: Iterable[WorkerInfo],
    *,
    now: float,
    silence: Mapping[str, float],
) -> None:
    """Print a row for each worker, below a line about those that are of a kind.

    Args:
        now: Redis's time.
        silence: seconds since the last announcement of each.
    """
    found = sorted(workers, key=lambda worker: (kind_of(worker), worker.name))
    if not found:
        console.print("No worker is listed.")
    for kind, same in groupby(found, kind_of):
        console.print(f"{kind}:")
        rows = [row_of(worker, now, silence.get(worker.name, 0.0)) for worker in same]
        print_table(console, HEADER, rows, framed=False)
        console.print()


def kind_of(worker: WorkerInfo) -> str:
    """Return a line about what a worker has in common with others."""
    parts = [
        f"{worker.model} in {worker.precision} on {worker.device}",
        f"weights {worker.weights or 'loading'}",
        *([f"attention {worker.attention}"] if worker.attention else []),
    ]
    if others := other_rungs(worker):
        parts.append(f"takes jobs in {' and '.join(others)} too")
    return one_line(", ".join(parts))


def other_rungs(worker: WorkerInfo) -> list[str]:
    """Return the first rungs of the jobs that a worker takes besides those of its precision."""
    # The model is not parsed: a newer version may know more.
    stem = f"{ModelSource(worker.model).queue}."
    rungs = [queue.removeprefix(stem) for queue in worker.queues if queue.startswith(stem)]
    return [rung for rung in rungs if "." not in rung and rung != worker.precision]


def row_of(worker: WorkerInfo, now: float, silent: float) -> tuple[str, ...]:
    speed, busy, started = worker.tokens_per_second, worker.busy, worker.started
    return (
        worker.name,
        "-" if speed is None else f"{speed:,.0f}",
        "-" if busy is None else f"{busy:.0%}".replace("%", " %"),
        memory_of(worker),
        state_of(worker, silent),
        "-" if started is None else uptime(max(0.0, now - started)),
    )


def uptime(seconds: float) -> str:
    """Return seconds in one short word: ``42s``, ``3m``, ``3h12m``, ``5d03h``."""
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86400))
    if minutes < 1:
        return f"{int(seconds)}s"
    if hours < 1:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60:02d}m" if days < 1 else f"{days}d{hours % 24:02d}h"


def memory_of(worker: WorkerInfo) -> str:
    """Return the gigabytes of the device that are used, and all of them."""
    if worker.memory_used is None or worker.memory_total is None:
        return "-"
    return f"{worker.memory_used / 1e9:.0f}/{worker.memory_total / 1e9:.0f} GB"


def state_of(worker: WorkerInfo, silent: float) -> str:
    """Return the oldest running batch of a worker and how many others run, or why none does."""
    if silent >= LATE_SECONDS:
        return f"silent for {silent:.0f} s"
    if worker.weights is None:
        return STAGES.get(worker.stage or "loading", worker.stage or "")
    if not worker.takes:
        return "takes no batches"
    if not worker.current:
        return "-"
    first, *others = worker.current
    return f"{first.job} {first.batch}" + (f" +{len(others)}" if others else "")
