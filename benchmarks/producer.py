"""The producer alone: a FASTA file is checked, cut into batches and staged in a folder.

    python -m benchmarks.producer [--megabytes 200] [--model NAME] [--repeats 3] [--identical 0.5]
        [--processes 1 2]

Makes a FASTA file with realistic proteins (lognormal lengths, median 290, lines of 60), then times
the staging in processes of their own, without their imports, and reads each one's peak memory. It
is staged with identical sequences computed once (on) and each by itself (off), in turns, by one
process and by more. Before it is staged, the content of a file is hashed for the name of its job,
by one process: that is timed alone. The peer in the same run is dnaio, which only reads the
records.

On a machine with 8 cores, with enough input that the start of the processes does not count:

    taskset -c 0-7 python -m benchmarks.producer --megabytes 2000 --processes 1 2 4 8
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

from common.cpus import usable_cpus
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
    parser.add_argument("--processes", type=int, nargs="+", default=[1, int(usable_cpus())])
    parser.add_argument("--once", choices=["on", "off", "hash", "dnaio"], help="one timing as JSON")
    parser.add_argument("--identical", type=float, default=0.0, help="share of the sequences")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.once:
        found = measure(options.once, options.folder, options.model, options.processes[0])
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder, "proteins.fasta")
        write_proteins(fasta, options.megabytes * 10**6, options.identical)
        print(f"{fasta.stat().st_size / 1e6:.0f} MB, {options.model}, {options.repeats} runs each")
        rest = ["--folder", folder, "--model", options.model]
        several = sorted({*options.processes} - {1})
        kinds = [("dnaio", 1), ("hash", 1), ("on", 1), ("off", 1), *(("on", n) for n in several)]
        rounds = [
            {kind: run(["--once", kind[0], "--processes", str(kind[1]), *rest]) for kind in kinds}
            for _ in range(options.repeats)
        ]
        for what, processes in kinds:
            runs = [each[what, processes] for each in rounds]
            speeds = [fasta.stat().st_size / 1e6 / run["seconds"] for run in runs]
            others = max(run["others"] for run in runs)
            print(
                f"  {what:6} {processes:2} {statistics.median(speeds):6.0f} MB/s "
                f"({min(speeds):.0f} to {max(speeds):.0f}), "
                f"CPU time {min(run['cpu'] for run in runs):.1f} s, "
                f"peak memory {max(run['megabytes'] for run in runs):.0f} MB"
                + (f", and {others:.0f} MB in each other process" if processes > 1 else "")
            )
        cpu = {what: min(each[what, 1]["cpu"] for each in rounds) for what in ("on", "off")}
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
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(what: str, folder: Path, model: str, processes: int) -> dict[str, float]:
    fasta = folder / "proteins.fasta"
    request, store = request_of(fasta, model, dedup=what == "on"), tempfile.mkdtemp(dir=folder)
    if what in ("on", "off"):
        request.fingerprint()
    started, cpu = time.perf_counter(), time.process_time()
    if what == "dnaio":
        with dnaio.open(fasta) as file:
            sum(len(record.sequence) for record in file)
    elif what == "hash":
        request.fingerprint()
    else:
        stage_input(request, Path(store), processes)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "cpu": cpu + others.ru_utime + others.ru_stime,
        "megabytes": peak_kilobytes() / 1024,
        "others": others.ru_maxrss / 1024,
    }


def peak_kilobytes() -> int:
    """Return the peak of this process's memory; ``getrusage`` counts that of its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def request_of(fasta: Path, model: str, *, dedup: bool) -> Request:
    return Request(
        source=Source(str(fasta)),
        model=ModelSource.parse(model),
        alphabet=MODELS[model].family.alphabet,
        rung=Rung.FP16,
        on_instability="retry",
        form=OutputForm(max_residues=1022),
        unknown="error",
        long="truncate",
        dedup=dedup,
    )


def stage_input(request: Request, store: Path, processes: int) -> None:
    spec = MODELS[request.model.text]
    folder = open_store(str(store))
    folder.check_writable()
    stage(
        folder,
        request,
        request.fingerprint(),
        budget=budget_for(request, spec, Hardware(on_gpu=True, workers=1), None),
        spec=spec,
        created=lambda: datetime.now(UTC),
        processes=processes,
    )


if __name__ == "__main__":
    main()
