"""A second release of a database: what ``--reuse`` computes of it, and what taking over takes.

    python -m benchmarks.reuse [--records 100000] [--share 0.95] [--shuffled] [--model NAME]

Stages a first release with realistic proteins and writes its shards, with random numbers, then
stages the second, which has a share of the same sequences in the same order, or in any, between
new ones, with and without ``--reuse``, each in a process of its own.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from common.job.manifest import Manifest, find_job
from common.model_specs import MODELS
from common.store import FileStore
from producer.input.source import Source
from producer.submission.earlier import earlier_rows
from producer.submission.request import Request, job_name, make_request
from producer.submission.staging import stage
from producer.submission.submit import Hardware, budget_for
from tests.support.shards import store_shard

LETTERS = "LAGVSERTIDPKQNFYMHWC"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.95, help="that the releases share")
    parser.add_argument("--shuffled", action="store_true", help="in another order")
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=MODELS)
    parser.add_argument("--folder", type=Path, help="where the store is")
    parser.add_argument("--once", choices=["first", "plain", "reuse"], help="one step, as JSON")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(step(options.once, options.folder, options.model)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        write_releases(Path(folder), options.records, options.share, shuffled=options.shuffled)
        found = {name: run(name, folder, options.model) for name in ("first", "plain", "reuse")}
        plain, reuse = found["plain"], found["reuse"]
        print(f"{options.records:,} proteins, {options.share:.0%} of them shared, {options.model}")
        for name, one in found.items():
            print(
                f"  {name:6} {one['computed']:9,.0f} computed, {one['tokens']:13,.0f} tokens, "
                f"{one['seconds']:6.1f} s to stage, peak memory {one['megabytes']:.0f} MB"
            )
        print(f"  tokens: {reuse['tokens'] / plain['tokens']:.4f} of those without --reuse")


def write_releases(folder: Path, records: int, share: float, *, shuffled: bool) -> None:
    """Write two FASTA files, the second with a share of the first and as many in all."""
    draw = random.Random(0)
    lengths = [max(30, int(draw.lognormvariate(5.67, 0.64))) for _ in range(2 * records)]
    proteins = ["".join(draw.choices(LETTERS, k=length)) for length in lengths]
    kept = int(share * records)
    second = [*range(kept), *range(records, 2 * records - kept)]
    places = {number: draw.random() for number in second}
    if not shuffled:
        places |= {number: number / kept for number in range(kept)}
    second.sort(key=lambda number: places[number])
    for name, numbers in (("first", list(range(records))), ("second", second)):
        lines = [f">{name}{number}\n{proteins[number]}\n" for number in numbers]
        (folder / f"{name}.fasta").write_text("".join(lines))


def run(name: str, folder: str, model: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.reuse", "--once", name, "--model", model]
    done = subprocess.run([*command, "--folder", folder], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def step(name: str, folder: Path, model: str) -> dict[str, float]:
    store = FileStore(folder / "store")
    store.check_writable()
    fasta = folder / f"{'first' if name == 'first' else 'second'}.fasta"
    request = make_request(Source(str(fasta)), model, reuse=name == "reuse")
    started = time.perf_counter()
    manifest = staged(store, request, model)
    seconds = time.perf_counter() - started
    if name == "first":
        for index in range(manifest.batches):
            store_shard(store, manifest, index, dim=MODELS[model].dim)
    elif name == "plain":
        store.delete(f"{manifest.job}/")
    return {
        "computed": manifest.computed,
        "tokens": manifest.tokens,
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def staged(store: FileStore, request: Request, model: str) -> Manifest:
    """Stage a request as ``submit`` does."""
    spec, name = MODELS[model], request.fingerprint()
    stage(
        store,
        request,
        name,
        budget=budget_for(request, spec, Hardware(on_gpu=True, workers=1), None),
        spec=spec,
        created=lambda: datetime.now(UTC),
        earlier=earlier_rows(store, request, None, frozenset()) if request.reuse else None,
    )
    manifest = find_job(store, job_name(request.source, name))
    assert manifest is not None
    return manifest


if __name__ == "__main__":
    main()
