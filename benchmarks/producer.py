"""The producer alone: a FASTA file is checked, cut into batches and staged in a folder.

    python -m benchmarks.producer [--megabytes 200] [--model NAME] [--repeats 3] [--identical 0.5]

Makes a FASTA file with realistic proteins (lognormal lengths, median 290, lines of 60), then times
the staging in processes of their own, without their imports, and reads each one's peak memory. It
is staged with identical sequences computed once (on) and each by itself (off), in turns. The peer
in the same run is dnaio, which only reads the records.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import dnaio

from common.job.output_form import OutputForm
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import Rung
from common.store import open_store
from producer.input.source import Source
from producer.submission.request import Request
from producer.submission.staging import stage
from producer.submission.submit import Hardware, budget_for

LETTERS = "LAGVSERTIDPKQNFYMHWC"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=MODELS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--once", choices=["on", "off", "dnaio"], help="one timing, as JSON")
    parser.add_argument("--identical", type=float, default=0.0, help="share of the sequences")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(measure(options.once, options.folder, options.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder, "proteins.fasta")
        write_proteins(fasta, options.megabytes * 10**6, options.identical)
        print(f"{fasta.stat().st_size / 1e6:.0f} MB, {options.model}, {options.repeats} runs each")
        rest = ["--folder", folder, "--model", options.model]
        kinds = ("on", "off", "dnaio")
        rounds = [{w: run(["--once", w, *rest]) for w in kinds} for _ in range(options.repeats)]
        for what in kinds:
            runs = [each[what] for each in rounds]
            speeds = [fasta.stat().st_size / 1e6 / run["seconds"] for run in runs]
            print(
                f"  {what:6} {statistics.median(speeds):6.0f} MB/s "
                f"({min(speeds):.0f} to {max(speeds):.0f}), "
                f"peak memory {max(run['megabytes'] for run in runs):.0f} MB"
            )
        cpu = {what: min(each[what]["cpu"] for each in rounds) for what in ("on", "off")}
        print(
            f"  on has {cpu['off'] / cpu['on']:.2f} of the speed of off, in CPU time (the best run)"
        )


def write_proteins(path: Path, size: int, identical: float = 0.0) -> None:
    """Write proteins, of which a share is identical to an earlier one."""
    draw = random.Random(0)
    pool = "".join(draw.choices(LETTERS, k=1_000_000))
    written = number = 0
    draws: list[tuple[int, int]] = []
    with path.open("w") as file:
        while written < size:
            if draws and draw.random() < identical:
                start, length = draw.choice(draws)
            else:
                length = max(30, int(draw.lognormvariate(5.67, 0.64)))
                start = draw.randrange(len(pool) - 40_000)
                draws.append((start, length))
            lines = [pool[i : i + 60] for i in range(start, start + length, 60)]
            lines[-1] = lines[-1][: (length - 1) % 60 + 1]
            written += file.write(f">P{number:08} protein {number}\n" + "\n".join(lines) + "\n")
            number += 1


def run(arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.producer", *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(what: str, folder: Path, model: str) -> dict[str, float]:
    fasta = folder / "proteins.fasta"
    started, cpu = time.perf_counter(), time.process_time()
    if what == "dnaio":
        with dnaio.open(fasta) as file:
            sum(len(record.sequence) for record in file)
    else:
        stage_file(fasta, Path(tempfile.mkdtemp(dir=folder)), model, dedup=what == "on")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu": cpu, "megabytes": peak}


def stage_file(fasta: Path, store: Path, model: str, *, dedup: bool) -> None:
    spec = MODELS[model]
    request = Request(
        source=Source(str(fasta)),
        model=ModelSource.parse(model),
        alphabet=spec.family.alphabet,
        rung=Rung.FP16,
        on_instability="retry",
        form=OutputForm(max_residues=1022),
        unknown="error",
        long="truncate",
        dedup=dedup,
    )
    budget = budget_for(request, spec, Hardware(on_gpu=True, workers=1), None)
    folder = open_store(str(store))
    folder.check_writable()
    stage(
        folder,
        request,
        request.fingerprint(),
        budget=budget,
        spec=spec,
        created=lambda: datetime.now(UTC),
    )


if __name__ == "__main__":
    main()
