"""Whole workers between a queue and a store: ``worker bench`` for several models, outputs and GPUs.

    python -m benchmarks.worker [--models NAME ...] [--outputs mean residues] [--gpus 1 2 4]
                                [--seconds 30] [--store FOLDER]

*of linear* is the speed divided by that of the first number of GPUs, scaled to as many GPUs. The
store is a temporary folder unless ``--store`` names another disk.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from common.model_specs import MODELS

DEFAULT_MODELS = ("esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D")


def main() -> None:
    options = parse_options()
    console = Console()
    console.width = max(console.width, 120)
    columns = "GPUs", "model alone", "worker", "of that", "of linear", "device busy", "start, s"
    table = Table("model", "output", *columns)
    machine = ""
    for model in options.models:
        for output in options.outputs:
            first: dict[str, Any] | None = None
            for gpus in options.gpus:
                found = measure(model, output, gpus, options.seconds, options.store)
                first, machine = first or found, found["machine"]
                table.add_row(model, output, *figures(found, first))
                console.print(f"{model} {output} {gpus}: {found['worker']:,}", highlight=False)
    console.print(machine, table, highlight=False)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS, choices=MODELS)
    parser.add_argument("--outputs", nargs="+", default=["mean"], choices=["mean", "residues"])
    parser.add_argument("--gpus", nargs="+", type=int, default=[1])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--store", help="folder for the workers' shards")
    return parser.parse_args()


def measure(
    model: str, output: str, gpus: int, seconds: float, store: str | None
) -> dict[str, Any]:
    numbers = ",".join(map(str, range(gpus)))
    command = [sys.executable, "-m", "workers.cli", "bench", f"--model={model}", "--json"]
    command += [f"--gpus={numbers}", f"--seconds={seconds}"]
    command += ["--per-residue"] if output == "residues" else []
    command += [f"--store={store}"] if store else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def figures(found: dict[str, Any], first: dict[str, Any]) -> list[str]:
    gpus, best = max(1, found["gpus"]), max(found["packs"].values())
    linear = first["worker"] * gpus / max(1, first["gpus"])
    return [
        f"{gpus}",
        f"{best:,}",
        f"{found['worker']:,}",
        f"{found['worker'] / (best * gpus):.1%}",
        f"{found['worker'] / linear:.1%}",
        "" if found["busy"] is None else f"{found['busy']:.1%}",
        f"{found['start_seconds']:.1f}",
    ]


if __name__ == "__main__":
    main()
