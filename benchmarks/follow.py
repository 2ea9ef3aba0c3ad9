"""A job's file written while the job runs, beside one that is fetched after it.

    python -m benchmarks.follow [--rows 1000000] [--dim 1280] [--seconds 60] [--folder FOLDER]

Store, ledger and files are real; the shards have random numbers instead of a model's, are not
flushed to the disk, and are done in a random order within a window, evenly over some seconds: a
million proteins in 60 s are what fifteen H100 compute with the 650M model. Prints the seconds from
the last batch's completion to the file's name, those of a fetch of the same job, the peak memory of
both, and whether the bytes are equal.

With ``--seconds 0`` all shards are there before the file is begun, and what is printed of it is how
fast they are taken: the most that a fleet may make.
"""

import argparse
import filecmp
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from common.embeddings.arrays import Embeddings
from common.embeddings.seal import Label
from common.embeddings.writer import create_embedding_file
from common.job.layout import shard_key
from common.job.manifest import Manifest, read_manifest, write_manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.ledger import Ledger
from common.local.embedded_redis import redis_server
from common.rungs import Rung
from common.store import FileStore, open_store
from common.wire.redis_client import connect
from producer.output.fetch import fetch
from producer.output.followed import Pace, follow
from producer.output.wanted import Wanted
from producer.scheduling.waiting import POLL_SECONDS
from tests.support.jobs import manifest_of, ok
from tests.support.shards import store_inputs

#: Rows of a batch and letters of a record: about a second of the 650M model on an H200. Batches
#: that are done in any order.
BATCH_ROWS, LETTERS, WINDOW = 900, 340, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--seconds", type=float, default=60.0, help="0: before the file is begun")
    parser.add_argument("--folder", type=Path, help="where the store and the files are made")
    parser.add_argument("--once", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(*options.once)))
        return
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="follow-", dir=options.folder)
        folder = Path(stack.enter_context(temporary))
        url = f"unix://{folder}/redis.sock?db=0"
        stack.enter_context(redis_server(folder / "redis.sock"))
        store, ledger = FileStore(folder / "store"), Ledger(connect(url))
        store.check_writable()
        manifest = staged(store, ledger, options.rows)
        following = partial(start, "follow", manifest.job, store.url, url)
        begun = following() if options.seconds else None
        last = compute(store, ledger, manifest, options.dim, options.seconds)
        followed = finish(begun or following())
        fetched = finish(start("fetch", manifest.job, store.url, url))
        same = filecmp.cmp(folder / "follow.h5", folder / "fetch.h5", shallow=False)
        shards = sum(store.sizes(f"{manifest.job}/output/"))
    print(
        f"{options.rows:,} rows of {options.dim}, {manifest.batches:,} batches, "
        f"{shards / 1e9:.2f} GB of shards"
    )
    if options.seconds:
        print(f"  followed: {followed['named'] - last:6.2f} s after the last batch", cost(followed))
    else:
        print("  followed:", rate(followed, shards), cost(followed))
    print("  fetched: ", rate(fetched, shards), cost(fetched))
    print(f"  the same bytes: {same}")


def rate(run: dict[str, float], shards: int) -> str:
    seconds = run["named"] - run["began"]
    return f"{seconds:6.2f} s, {shards / 1e6 / seconds:.0f} MB/s of shards"


def cost(run: dict[str, float]) -> str:
    return f"({run['cpu']:.1f} s of a CPU, peak memory {run['megabytes']:.0f} MB)"


def staged(store: FileStore, ledger: Ledger, rows: int) -> Manifest:
    """Stage a job, and open it in Redis."""
    sizes = [min(BATCH_ROWS, rows - start) for start in range(0, rows, BATCH_ROWS)]
    manifest = manifest_of(sizes, form=OutputForm(max_residues=1022))
    letters = "MKVLGASTLL" * (LETTERS // 10)
    records = [Record(row, header(row), letters) for row in range(rows)]
    manifest = store_inputs(store, manifest, records)
    write_manifest(store, manifest)
    ledger.jobs.create(manifest, "m.fp16")
    return manifest


def header(row: int) -> str:
    return f"sp|P{row:07}|NAME_HUMAN Protein number {row} OS=Homo sapiens OX=9606 PE=1 SV=1"


def compute(
    store: FileStore, ledger: Ledger, manifest: Manifest, dim: int, seconds: float
) -> float:
    """Write all shards and count their batches; return when the last one was counted."""
    order, draw = list(range(manifest.batches)), random.Random(0)
    order.sort(key=lambda index: index + draw.random() * WINDOW)
    numbers = np.random.default_rng(0).random((BATCH_ROWS, dim), np.float32)
    began = time.monotonic()
    for done, index in enumerate(order, start=1):
        time.sleep(max(0.0, began + done / len(order) * seconds - time.monotonic()))
        write_shard(store, manifest, index, numbers + np.float32(index))
        ledger.results.complete(ok(manifest.batch(index)))
    return time.monotonic()


def write_shard(store: FileStore, manifest: Manifest, index: int, numbers: np.ndarray) -> None:
    size, first = manifest.batch_records[index], index * BATCH_ROWS
    records = [Record(row, header(row), "M" * LETTERS) for row in range(first, first + size)]
    part = Embeddings.of_records(
        records, manifest.form, precision="fp16", pooled={"mean": numbers[:size]}, residues=None
    )
    label = Label(
        job=manifest.job,
        batch=index,
        rung=Rung.FP16,
        created=manifest.created.timestamp(),
        precision=Rung.FP16,
        tokens=size * (LETTERS + 2),
        records=size,
        weights="w",
    )
    dim, path = numbers.shape[1], store.root / shard_key(manifest.job, index, Rung.FP16)
    path.parent.mkdir(exist_ok=True)
    with create_embedding_file(
        path,
        form=manifest.form,
        records=size,
        residues=size * LETTERS,
        dim=dim,
        attributes={"weights": "w", "dim": dim, "layers": [33], "job": manifest.job},
        label=label,
    ) as writer:
        writer.write(part)


def start(what: str, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.follow", "--once", what, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> dict[str, float]:
    output, _ = process.communicate()
    found: dict[str, float] = json.loads(output)
    return found


def once(what: str, job: str, store_url: str, url: str) -> dict[str, float]:
    """Follow a job, or fetch it; return when that began, and when the file had its name."""
    store, began, cpu = open_store(store_url), time.monotonic(), cpu_seconds()
    manifest = read_manifest(store, job)
    output = Path(store_url.removeprefix("file://")).parent / f"{what}.h5"
    if what == "fetch":
        fetch(store, manifest, output)
    else:
        follow(
            *(store, Ledger(connect(url)), manifest, output, Pace(POLL_SECONDS)),
            wanted=Wanted(),
            before_replacing=lambda: None,
            check_room=lambda _bytes: None,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = cpu_seconds() - cpu
    return {"began": began, "named": time.monotonic(), "megabytes": peak, "cpu": spent}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those that it has waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
