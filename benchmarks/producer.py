"""The producer alone: a FASTA file is checked, cut into batches and staged in a folder.

    python -m benchmarks.producer [--megabytes 200] [--model NAME] [--repeats 3] [--identical 0.5]
        [--processes 1 2] [--dedup on off] [--folder FOLDER]

Makes a FASTA file with realistic proteins (``benchmarks.fasta``), then times the staging in
processes of their own, without their imports, and reads each one's peak memory. It is staged with
identical sequences computed once (on) and each by itself (off), in turns, by one process and, with
on, by more. Before it is staged, the content of a file is hashed for the name of its job, as
segments by several threads if it is large: that is timed alone, by one thread and by all. The peer
in the same run is dnaio, which only reads the records.

On a machine with 8 cores, with enough input that the start of the processes does not count:

    taskset -c 0-7 python -m benchmarks.producer --megabytes 2000 --repeats 1 --dedup on \
        --processes 1 2 4 8
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import dnaio

from benchmarks.fasta import write_proteins
from common.cpus import usable_cpus
from common.job.output_form import OutputForm
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import Rung
from common.segment_hash import hashing_threads, segment_hash
from common.store import open_store
from common.text import counted
from producer.input.content_hash import SEGMENT_BYTES
from producer.input.source import Source
from producer.submission.request import Request
from producer.submission.staging import stage
from producer.submission.submit import Hardware, budget_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=MODELS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, int(usable_cpus())])
    parser.add_argument("--dedup", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--identical", type=float, default=0.0, help="share of the sequences")
    parser.add_argument("--folder", type=Path, help="where the file and the stores are made")
    parser.add_argument("--once", choices=["on", "off", "hash", "dnaio"], help="one timing as JSON")
    options = parser.parse_args()
    if options.once:
        found = measure(options.once, options.folder, options.model, options.processes[0])
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(prefix="producer-", dir=options.folder) as folder:
        fasta, started = Path(folder, "proteins.fasta"), time.perf_counter()
        write_proteins(fasta, options.megabytes * 10**6, options.identical)
        size, seconds = fasta.stat().st_size / 1e6, time.perf_counter() - started
        print(
            f"{size:.0f} MB, made at {size / seconds:.0f} MB/s, {options.model}, "
            f"{counted(options.repeats, 'run')} each"
        )
        kinds = kinds_of(options.dedup, options.processes)
        rounds = [
            {kind: run(*kind, folder, options.model) for kind in kinds}
            for _ in range(options.repeats)
        ]
        for kind in kinds:
            runs = [each[kind] for each in rounds]
            more = kind[0] == "on" and kind[1] > 1
            print(f"  {kind[0]:6} {kind[1]:2} {summary(runs, size)}")
            if more:
                print(f"             {summary_of_others(runs, size)}")
        if {"on", "off"} <= {*options.dedup}:
            cpu = {what: min(each[what, 1]["cpu"] for each in rounds) for what in ("on", "off")}
            print(
                f"  on has {cpu['off'] / cpu['on']:.2f} of the speed of off, "
                "in CPU time (the best run)"
            )


def kinds_of(dedup: Sequence[str], processes: Sequence[int]) -> list[tuple[str, int]]:
    """Return what is timed, by how many threads (hash) or processes."""
    several = sorted({*processes} - {1})
    return [
        ("dnaio", 1),
        *(("hash", threads) for threads in sorted({1, hashing_threads()})),
        *((what, 1) for what in dedup),
        *(("on", number) for number in several if "on" in dedup),
    ]


def summary(runs: Sequence[Mapping[str, float]], size: float) -> str:
    """Return what runs of one kind gave, of an input of ``size`` MB."""
    speeds = [size / run["seconds"] for run in runs]
    return (
        f"{statistics.median(speeds):6.0f} MB/s ({min(speeds):.0f} to {max(speeds):.0f}), "
        f"CPU time {min(run['cpu'] for run in runs):.1f} s, "
        f"peak memory {max(run['megabytes'] for run in runs):.0f} MB"
    )


def summary_of_others(runs: Sequence[Mapping[str, float]], size: float) -> str:
    """Return what runs by several processes took in the main one and in the others."""
    best = min(runs, key=lambda run: run["cpu"])
    main, others = best["main_cpu"] / size * 1e3, (best["cpu"] - best["main_cpu"]) / size * 1e3
    return (
        f"CPU time for each MB: {main:.2f} ms in the main process, {others:.2f} ms in the others, "
        f"of which each has {max(run['others'] for run in runs):.0f} MB"
    )


def run(what: str, number: int, folder: str, model: str) -> dict[str, float]:
    """Time one kind in a process of its own; its store is deleted."""
    command = [sys.executable, "-m", "benchmarks.producer", "--once", what, "--folder", folder]
    command += ["--processes", str(number), "--model", model]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for store in Path(folder).glob("store-*"):
        shutil.rmtree(store)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(what: str, folder: Path, model: str, number: int) -> dict[str, float]:
    """Return seconds, CPU seconds and peak megabytes of one kind, by ``number`` of its processes.

    Args:
        folder: which has ``proteins.fasta``. A store is made there.
    """
    fasta = folder / "proteins.fasta"
    request = request_of(fasta, model, dedup=what == "on")
    store = tempfile.mkdtemp(prefix="store-", dir=folder)
    if what in ("on", "off"):
        request.fingerprint()
    started, cpu = time.perf_counter(), time.process_time()
    if what == "dnaio":
        with dnaio.open(fasta) as file:
            sum(len(record.sequence) for record in file)
    elif what == "hash":
        with fasta.open("rb") as file:
            segment_hash(file.fileno(), SEGMENT_BYTES, number)
    else:
        stage_input(request, Path(store), number)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "main_cpu": cpu,
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
