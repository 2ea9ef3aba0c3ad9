"""One job alone, from ``producer submit`` to its file, with workers that are ready.

    python -m benchmarks.single [--megabytes 1000] [--model NAME] [--dim 320] [--workers 4]
        [--parts] [--staging] [--fasta FILE] [--folder FOLDER]
    python -m benchmarks.single --real [--gpus all] [--model NAME] [--megabytes 1000]

Redis, the store (a folder), producer and file are real. The workers have an engine that answers at
once, with vectors of the model's width or another one; with ``--real`` they have the model, with
random weights, on each GPU. The job is seen from outside, in the ledger and in folders: its first
batch that is done, the manifest (the end of the staging), its last batch, and the file.

``--parts``, and always ``--real``, measures the parts one after another, too: the same input
staged without workers, the model's speed by ``worker bench``, and ``producer fetch`` of the job.
``--staging`` submits without ``-o``, and ends once all is staged: a large input then shows how soon
the first batch is done, and takes no minutes.
The disk needs room for the input twice and for the vectors twice.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from benchmarks.costs import wait_until
from benchmarks.fasta import write_proteins
from benchmarks.processes import Peaks
from benchmarks.redisload import machine
from benchmarks.worker import measure
from common.errors import UserError
from common.job.layout import manifest_key
from common.job.manifest import Manifest, read_manifest
from common.ledger.ledger import Ledger
from common.local.fleet import WORKER_STOP_SECONDS, LocalFleet, local_fleet
from common.local.processes import end_of_log, start_dependent, stop
from common.model_specs import MODELS
from common.store import open_store
from common.wire.redis_client import connect

#: Seconds between two looks at the job.
LOOK_SECONDS = 0.02

#: Bytes of the job that goes before, so that no worker does anything for the first time; of a
#: small input a tenth.
WARM_UP_BYTES = 20_000_000

#: Seconds that workers have to be ready.
READY_SECONDS = 600.0

#: Seconds for which ``worker bench`` measures.
BENCH_SECONDS = 20.0

INPUT, WARM_UP = "proteins", "warm-up"


@dataclass
class Moments:
    """Seconds from the start of the command to what happened; None: it did not."""

    first: float | None = None  # batch that was done
    staged: float | None = None
    last: float | None = None  # batch that was done
    file: float | None = None
    batches: int = 0  # that are done

    def look(self, now: float, done: int, *, staged: bool, file: bool) -> None:
        """Note what is there now and was not before."""
        if done > self.batches:
            self.first, self.last, self.batches = self.first or now, now, done
        self.staged = self.staged or (now if staged else None)
        self.file = self.file or (now if file else None)


def main() -> None:
    options = parse_options()
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="single-", dir=options.folder)
        folder = Path(stack.enter_context(temporary))
        fasta, warm_up = folder / f"{INPUT}.fasta", folder / f"{WARM_UP}.fasta"
        size = int(options.megabytes * 1e6)
        if options.fasta is None:
            write_proteins(fasta, size)
        else:
            fasta.symlink_to(options.fasta.resolve())
        write_proteins(warm_up, min(WARM_UP_BYTES, size // 10), seed=1)
        model = f"random:{options.model}"
        with running_fleet(folder, model, options) as (fleet, workers):
            redis = connect(fleet.broker_url)
            print(f"{machine(redis)}; {workers} {'real' if options.real else 'stub'} workers")
            run(fleet, "submit", warm_up, "--model", model, "-o", folder / "warm-up.h5")
            output = None if options.staging else folder / f"{INPUT}.h5"
            moments, peaks, seconds = time_job(fleet, folder, fasta, model, output)
        manifest = read_manifest(open_store(f"file://{folder}/store"), job_in(folder))
        if output is None:
            print(*report(moments, peaks, seconds, manifest, fasta, output), sep="\n")
            return
        check_file(output, manifest)
        print(*report(moments, peaks, seconds, manifest, fasta, output), sep="\n", flush=True)
        if options.parts or options.real:
            gpus = len(fleet.used_gpus()) if options.real else 0
            parts = measure_parts(folder, fasta, manifest, options.model, gpus)
            print(*report_parts(parts, seconds), sep="\n")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=MODELS)
    parser.add_argument("--dim", type=int, help="width of the stubs' vectors; default: the model's")
    parser.add_argument("--workers", type=int, default=4, help="stubs")
    parser.add_argument("--real", action="store_true", help="workers with the model")
    parser.add_argument("--gpus", default="all", help="of the real workers; none: the CPU")
    parser.add_argument("--parts", action="store_true", help="measure the parts, too")
    parser.add_argument("--staging", action="store_true", help="only until all is staged")
    parser.add_argument("--fasta", type=Path, help="an input instead of one that is made")
    parser.add_argument("--folder", type=Path, help="where everything is made")
    return parser.parse_args()


# --- the fleet ------------------------------------------------------------------------------------


@contextmanager
def running_fleet(
    folder: Path, model: str, options: argparse.Namespace
) -> Iterator[tuple[LocalFleet, int]]:
    """Run Redis and workers that are ready; yield the fleet and the number of workers."""
    store = f"file://{folder}/store"
    open_store(store).check_writable()
    with local_fleet(folder, store, gpus=options.gpus) as fleet, ExitStack() as stack:
        if options.real:
            fleet.start_worker(model)
            workers = max(1, len(fleet.used_gpus()))
        else:
            workers = options.workers
            for number in range(workers):
                stack.enter_context(stub_worker(fleet, options.model, options.dim, number))
        ledger = Ledger(connect(fleet.broker_url))

        def are_ready() -> bool:
            fleet.check(model)
            return sum(found.weights is not None for found in ledger.workers.all()) == workers

        wait_until(are_ready, READY_SECONDS)
        yield fleet, workers


@contextmanager
def stub_worker(fleet: LocalFleet, model: str, dim: int | None, number: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.stub_worker", model, str(dim or MODELS[model].dim)]
    with (fleet.folder / f"stub-{number}.log").open("wb") as log:
        process = start_dependent(command, env=fleet.environment, output=log)
        try:
            yield
        finally:
            stop(process, WORKER_STOP_SECONDS)


# --- measuring ------------------------------------------------------------------------------------


def producer(*words: object) -> list[str]:
    return [sys.executable, "-m", "producer.cli", *map(str, words)]


def run(fleet: LocalFleet, *words: object) -> float:
    """Run a command of the producer to its end; return its seconds.

    Raises:
        UserError: it failed, with what it said.
    """
    started = time.perf_counter()
    done = subprocess.run(producer(*words), env=fleet.environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(map(str, words))} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - started


def time_job(
    fleet: LocalFleet, folder: Path, fasta: Path, model: str, output: Path | None
) -> tuple[Moments, Peaks, float]:
    """Submit a job and watch it to its end; return the seconds of the command, too.

    Args:
        output: its file; None: it is watched until it is staged.

    Raises:
        UserError: the command failed.
    """
    ledger = Ledger(connect(fleet.broker_url))
    moments, log = Moments(), folder / "submit.log"
    started = time.perf_counter()
    with log.open("wb") as out:
        to = [] if output is None else ["-o", output]
        command = producer("submit", fasta, "--model", model, *to)
        process = start_dependent(command, env=fleet.environment, output=out)
    peaks, ended = Peaks(process.pid), False
    while not ended:
        ended = process.poll() is not None
        now = time.perf_counter() - started
        progress = [ledger.jobs.progress(job) for job in jobs_of_input(ledger.jobs.names())]
        moments.look(
            now,
            sum(found.batches_done for found in progress if found is not None),
            staged=any((folder / "store").glob(manifest_key(f"{INPUT}-*"))),
            file=output is not None and output.exists(),
        )
        peaks.look()
        time.sleep(0 if ended else LOOK_SECONDS)
    if process.returncode:
        raise UserError(f"submit failed:\n{end_of_log(log)}")
    return moments, peaks, now


def jobs_of_input(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{INPUT}-")]


def job_in(folder: Path) -> str:
    """Return the name of the job whose manifest is in a folder's store."""
    (manifest,) = (folder / "store").glob(manifest_key(f"{INPUT}-*"))
    return manifest.parent.name


def check_file(output: Path, manifest: Manifest) -> None:
    with h5py.File(output) as file:
        assert len(file["ids"]) == manifest.report.records


def measure_parts(
    folder: Path, fasta: Path, manifest: Manifest, model: str, gpus: int
) -> dict[str, float]:
    """Return the seconds of each part of a job that has finished, measured alone.

    Args:
        gpus: that computed it; 0: stubs, or the CPU, whose time is left out.
    """
    parts = {}
    with (
        tempfile.TemporaryDirectory(dir=folder) as other,
        local_fleet(Path(other), f"file://{other}/store") as fleet,
    ):
        parts["submit, without workers"] = run(fleet, "submit", fasta, "--model", manifest.model)
    if gpus:
        speed = measure(model, "mean", gpus, BENCH_SECONDS, str(folder))["worker"]
        parts[f"the model at {speed:,} tokens/s"] = manifest.tokens / speed
    with local_fleet(folder, f"file://{folder}/store") as fleet:
        parts["fetch"] = run(fleet, "fetch", manifest.job, "-o", folder / "fetched.h5")
    return parts


# --- the report -----------------------------------------------------------------------------------


def report(
    moments: Moments,
    peaks: Peaks,
    seconds: float,
    manifest: Manifest,
    fasta: Path,
    output: Path | None,
) -> Iterator[str]:
    """Yield the job's size, the seconds to each moment with the input's MB/s, and the memory."""
    size = fasta.stat().st_size / 1e6
    file = "" if output is None else f"; file of {output.stat().st_size / 1e6:,.0f} MB"
    yield (
        f"{size:,.0f} MB, {manifest.report.records:,} proteins, {manifest.tokens:,} tokens, "
        f"{manifest.batches:,} batches of {manifest.model}{file}"
    )
    rows = {
        "first batch done": moments.first,
        "staged": moments.staged,
        "last batch done": moments.last,
        "file": moments.file,
        "end of the command": seconds,
    }
    for name, at in rows.items():
        rate = "" if at is None or name == "first batch done" else f"{size / at:8,.0f} MB/s"
        yield f"  {name:20} " + ("not seen" if at is None else f"{at:7.2f} s{rate}")
    more = f", of the largest process it started {peaks.child / 1e6:,.0f} MB" if peaks.child else ""
    yield f"  peak memory of the producer {peaks.own / 1e6:,.0f} MB{more}"


def report_parts(parts: dict[str, float], seconds: float) -> Iterator[str]:
    """Yield the seconds of the parts, and of the job in comparison with their sum."""
    yield "The parts alone:"
    for name, one in parts.items():
        yield f"  {name:40} {one:7.2f} s"
    total = sum(parts.values())
    yield f"  {'sum':40} {total:7.2f} s; the job took {seconds / total:.0%} of that"


if __name__ == "__main__":
    main()
