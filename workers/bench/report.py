"""The result of ``worker bench`` as a table, or as one JSON document."""

import platform

import torch
from rich.console import Console
from rich.table import Table

from workers.bench.run import Measured, Request
from workers.models import kernels
from workers.runtime.device import device_name


def describe_machine(request: Request) -> str:
    """Return the devices and the versions that the speed depends on."""
    name = device_name("cuda") if request.gpus else device_name("cpu")
    count = f"{len(request.gpus)} " if len(request.gpus) > 1 else ""
    triton = f", Triton {kernels.triton.__version__}" if kernels.triton is not None else ""
    cuda = f", CUDA {torch.version.cuda}" if request.gpus else ""
    return (
        f"{count}{name}; torch {torch.__version__}{cuda}{triton}, "
        f"Python {platform.python_version()}"
    )


def print_report(measured: Measured, request: Request) -> None:
    """Print the table to standard output."""
    best, fleet = measured.best, measured.fleet
    console = Console(markup=False, emoji=False)
    console.print(describe_machine(request))
    console.print(
        f"{measured.spec.name} in {measured.precision}, random weights, proteins or contigs of 30 "
        "letters and more, median 290; tokens per second"
    )
    table = Table("measured", "tokens/s", "")
    for pack in measured.packs:
        what = f"model alone, packs of {pack.tokens:,}"
        table.add_row(
            what, f"{pack.tokens_per_second:,.0f}", f"{1000 * pack.seconds:.1f} ms per pack"
        )
    share = fleet.tokens_per_second / (best.tokens_per_second * max(1, len(request.gpus)))
    output = "per-residue vectors" if request.per_residue else "mean vectors"
    table.add_row(
        f"worker, store to store, {output}",
        f"{fleet.tokens_per_second:,.0f}",
        f"{share:.1%} of the best pack's; {fleet.tokens:,} tokens in {fleet.seconds:.1f} s",
    )
    console.print(table)
    console.print(f"From the worker's start to its first batch: {fleet.start_seconds:.1f} s.")
    if measured.busy is not None:
        console.print(f"The device was busy for {measured.busy:.1%} of the time.")
    if request.trace is not None and measured.busy is not None:
        console.print(f"The trace is {request.trace}: open it in https://ui.perfetto.dev.")


def as_document(measured: Measured, request: Request) -> dict[str, object]:
    """Return the document that ``--json`` prints; speeds are tokens per second."""
    return {
        "machine": describe_machine(request),
        "model": measured.spec.name,
        "precision": str(measured.precision),
        "gpus": len(request.gpus),
        "per_residue": request.per_residue,
        "packs": {str(pack.tokens): round(pack.tokens_per_second) for pack in measured.packs},
        "worker": round(measured.fleet.tokens_per_second),
        "start_seconds": round(measured.fleet.start_seconds, 2),
        "busy": None if measured.busy is None else round(measured.busy, 4),
    }
