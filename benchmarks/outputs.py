"""The outputs of a job in each layout, against the plain HDF5 file of the same run.

    python -m benchmarks.outputs [--rows 1000000] [--dim 1280] [--layouts npz ...] [--include mean]

Makes the input and the shards of a finished job, with random numbers, in a folder as its store, and
fetches them into each layout, in a process of its own, whose peak memory is read from the system.
A store and an output of a million rows of 1280 take 11 GB together. The two layouts that have a
file or a data set for each id are left out unless they are named.
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
from functools import partial
from pathlib import Path

import numpy as np

from common.embeddings.arrays import Embeddings
from common.job.manifest import Manifest, find_job, write_manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from common.store import FileStore
from producer.output.fetch import fetch
from producer.output.layouts.choice import LAYOUTS, suffix_of
from producer.output.wanted import Wanted
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs, store_shard

#: Records of a batch: as many as a batch of 3,000,000 tokens has of proteins of 290 letters, about.
BATCH = 10_000


#: Layouts with one file, in the order in which they are measured.
USUAL = [name for name, layout in LAYOUTS.items() if name not in ("uniprot", "esm")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--layouts", nargs="+", default=USUAL, choices=list(LAYOUTS))
    parser.add_argument("--include", nargs="+", default=["mean"], choices=["mean", "max", "std"])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the store and the outputs are")
    parser.add_argument("--once", metavar="LAYOUT", help="one output of a store, as JSON")
    options = parser.parse_args()
    if options.once == "store":
        make_store(options)
    elif options.once:
        print(json.dumps(measure(options.once, options.folder)))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            compare(Path(folder), options)


def compare(folder: Path, options: argparse.Namespace) -> None:
    """Print a line for each layout; seconds are the median of the repeats."""
    # In another process: the peak of a process is at least that of the one that starts it.
    size = ["--rows", str(options.rows), "--dim", str(options.dim)]
    run(folder, "store", *size, "--include", *options.include)
    what = f"{options.dim} {' and '.join(options.include)}"
    print(f"{options.rows:,} rows of {what}, {options.repeats} runs of each")
    names = ("layout", "seconds", "of h5", "CPU s", "MB", "of h5", "peak MB")
    print("{:12} {:>8} {:>6} {:>7} {:>8} {:>6} {:>8}".format(*names))
    plain: dict[str, float] = {}
    for layout in dict.fromkeys(["h5", *options.layouts]):
        runs = [json.loads(run(folder, layout)) for _ in range(options.repeats)]
        found = {name: statistics.median(one[name] for one in runs) for name in runs[0]}
        plain = plain or found
        print(
            f"{layout:12} {found['seconds']:8.1f} {found['seconds'] / plain['seconds']:6.2f} "
            f"{found['cpu']:7.1f} {found['bytes'] / 1e6:8.1f} "
            f"{found['bytes'] / plain['bytes']:6.2f} {found['peak'] / 1e6:8.0f}",
            flush=True,
        )


def run(folder: Path, what: str, *more: str) -> str:
    command = [sys.executable, "-m", "benchmarks.outputs", "--once", what, "--folder", folder]
    done = subprocess.run([*command, *more], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def store_in(folder: Path) -> FileStore:
    return FileStore(folder / "store")


def make_store(options: argparse.Namespace) -> None:
    """Write the input and the shards of a finished job."""
    rows, dim, store = options.rows, options.dim, store_in(options.folder)
    store.check_writable()
    sizes = [min(BATCH, rows - start) for start in range(0, rows, BATCH)]
    manifest = manifest_of(
        sizes, form=OutputForm(max_residues=1022, include=tuple(options.include))
    )
    records = [
        Record(row, f"sp|P{row:07d}|PROT_HUMAN protein {row}", "MKTAYIAKQR") for row in range(rows)
    ]
    manifest = store_inputs(store, manifest, records)
    numbers = np.random.default_rng(0).random((BATCH, dim), dtype=np.float32)
    for index in range(manifest.batches):
        store_shard(store, manifest, index, dim=dim, embed=partial(with_numbers, numbers))
    write_manifest(store, manifest)


def with_numbers(
    numbers: np.ndarray, records: list[Record], form: OutputForm, _dim: int, *, precision: Rung
) -> Embeddings:
    """Return embeddings of records whose vectors are the first of some numbers."""
    pooled = {name: numbers[: len(records)] for name in form.pooled_names}
    return Embeddings.of_records(records, form, precision=precision, pooled=pooled, residues=None)


def measure(layout: str, folder: Path) -> dict[str, float]:
    """Fetch a job into a layout; return seconds, CPU seconds, bytes, and the peak of memory."""
    store = store_in(folder)
    manifest = only_job(store)
    output = folder / f"output{suffix_of(layout)}"
    started, cpu = time.perf_counter(), time.process_time()
    fetch(store, manifest, output, wanted=Wanted(layout=layout))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    written = [output, *LAYOUTS[layout].others(output)]
    size = sum(file.stat().st_size for path in written for file in files_of(path))
    for path in written:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "cpu": cpu, "bytes": size, "peak": peak}


def only_job(store: FileStore) -> Manifest:
    manifest = find_job(store, next(iter(store.folders())))
    assert manifest is not None
    return manifest


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


if __name__ == "__main__":
    main()
