"""The costs of a batch outside the GPU, measured on this machine.

    python -m benchmarks.costs [--batches 600]

Takes a job through producer, Redis, Celery and worker; a stub that answers at once replaces the
model. ``benchmarks.scaling`` simulates the effect of the costs on many GPUs.
"""

import argparse
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from redis import Redis

from benchmarks.fasta import write_proteins
from benchmarks.redisload import Load, Meter, machine, memory
from benchmarks.stores import CountingStore
from benchmarks.stubs import MODEL, WORKER, StubEngine, stub_runner
from common.alphabet import PROTEIN
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.ledger.ledger import Ledger
from common.ledger.speed import Speed
from common.local.embedded_redis import redis_server
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import Rung
from common.wire.celery_app import make_celery, publish
from common.wire.redis_client import connect
from producer.input.batches import batch_tokens
from producer.input.source import Source
from producer.output.fetch import fetch
from producer.scheduling.keeper import STEP_SECONDS, Keeper
from producer.scheduling.opening import job_queue
from producer.scheduling.publisher import Publisher
from producer.scheduling.waiting import POLL_SECONDS, look
from producer.submission.request import Request
from producer.submission.submit import Hardware, submit
from workers.transport.consumer import THREADS, consume


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The measured costs of all parts but the model."""

    date: str
    machine: str
    submit: Load  # a batch staged and published
    publish: Load  # a batch published, which is a part of ``submit``
    run: Load  # a batch through a worker
    idle: Load  # a second with one worker and no work
    alone: Load  # a second without any client
    heartbeat: Load  # one heartbeat of a worker whose threads all have a batch
    watch: Load  # one look of ``producer watch`` at ``WATCHED_WORKERS`` workers
    publish_rate: float  # batches/s
    fetch_rate: float  # bytes/s of shards
    stage_writes: float  # the producer's writes to the store per batch
    reads: float  # the worker's reads per batch
    writes: float  # the worker's writes per batch
    read_bytes: float  # bytes that the worker reads per batch
    written_bytes: float  # bytes that the worker writes per batch
    queued_bytes: float  # Redis's memory per waiting batch
    kept_bytes: float  # Redis's memory per finished batch
    connections: float  # of a worker to Redis
    worker_seconds: float  # of a batch through a worker whose model takes no time


#: The output of ``measure``. The commands of the loads are in ``docs/scaling.md``.
MEASURED = Costs(
    date="2026-11-20",
    machine="64 cores Intel Xeon, Valkey 9.1.2",
    submit=Load(8.6),
    publish=Load(1.9),
    run=Load(220.9),
    idle=Load(1177.2),
    alone=Load(950.9),
    heartbeat=Load(52.1),
    watch=Load(103.7),
    publish_rate=28_280,
    fetch_rate=681e6,
    stage_writes=1.0,
    reads=1.0,
    writes=1.0,
    read_bytes=342_500,
    written_bytes=4_629_000,
    queued_bytes=1005,
    kept_bytes=1.4,
    connections=10,
    worker_seconds=0.012,
)

#: Bytes of FASTA that are hashed per second, and that are staged by 8 processes, by ``python -m
#: benchmarks.producer`` with 8 cores.
HASH_RATE, STAGING_RATE = 6.7e9, 369e6

#: Seconds from the start of ``producer submit`` to its first queued batch, without those of the
#: hash, by ``python -m benchmarks.single``.
FIRST_BATCH_SECONDS = 2.3

#: Seconds from the last shard that is written to the name of the file, by ``python -m
#: benchmarks.follow`` (a million rows on a local disk).
TAIL_SECONDS = 0.3

# --- measuring ------------------------------------------------------------------------------------

FORM = OutputForm(max_residues=1022)

#: Number of workers that ``producer watch`` finds; of looks and heartbeats; of messages published.
WATCHED_WORKERS, TIMES, MESSAGES = 64, 200, 10_000

#: Largest number of waiting messages: enough for the whole job.
HIGH_WATER = 100_000

#: Seconds of measuring a worker without work, and Redis without a worker.
IDLE_SECONDS = 20.0


def measure(batches: int) -> Costs:
    """Take a job of about ``batches`` batches through the parts, one after another."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        socket, url = Path(folder, "redis.sock"), f"unix://{folder}/redis.sock?db=0"
        with redis_server(socket), connect(url) as redis:
            store = CountingStore(Path(folder, "store"))
            alone = idle_load(redis)
            manifest, found = measure_producer(redis, url, store, Path(folder), batches)
            found |= measure_ledger(redis, url, store, manifest)
            found |= measure_worker(redis, url, store, manifest)
            started = time.perf_counter()
            fetch(store, manifest, Path(folder, "embeddings.h5"))
            fetch_rate = sum(store.written) / (time.perf_counter() - started)
            today = f"{datetime.now(UTC):%Y-%m-%d}"
            return Costs(
                date=today, machine=machine(redis), alone=alone, fetch_rate=fetch_rate, **found
            )


def idle_load(redis: Redis) -> Load:
    meter = Meter(redis)
    time.sleep(IDLE_SECONDS)
    return meter.load(IDLE_SECONDS)


def measure_producer(
    redis: Redis, url: str, store: CountingStore, folder: Path, batches: int
) -> tuple[Manifest, dict[str, Any]]:
    """Stage and publish a job while no worker runs."""
    budget = batch_tokens(MODELS[MODEL.name], on_gpu=True, workers=1)
    fasta = folder / "proteins.fasta"
    write_proteins(fasta, batches * budget)
    request = Request(
        source=Source(str(fasta)),
        model=MODEL,
        alphabet=PROTEIN,
        rung=Rung.FP16,
        on_instability="retry",
        form=FORM,
        unknown="error",
        long="truncate",
    )
    app = make_celery(url, [])
    meter = Meter(redis)
    hardware = Hardware(on_gpu=True, workers=1)
    manifest = submit(
        request,
        store,
        Ledger(redis),
        Publisher(Ledger(redis), app, HIGH_WATER),
        hardware=hardware,
        tokens=budget,
    ).manifest
    found = {
        "submit": meter.load(manifest.batches),
        "stage_writes": len(store.written) / manifest.batches,
        "queued_bytes": memory(redis, job_queue(manifest)) / manifest.batches,
    }
    # For another model, whose queue the worker does not serve.
    other = ModelSource.parse("random:esm2_t6_8M_UR50D")
    messages = [manifest.batch(number % manifest.batches) for number in range(MESSAGES)]
    meter, started = Meter(redis), time.perf_counter()
    publish(app, other, messages)
    found["publish_rate"] = MESSAGES / (time.perf_counter() - started)
    found["publish"] = meter.load(MESSAGES)
    return manifest, found


def measure_ledger(
    redis: Redis, url: str, store: CountingStore, manifest: Manifest
) -> dict[str, Any]:
    """Measure a worker's heartbeats, and looks at the job while there are many workers."""
    ledger = Ledger(redis)
    publisher = Publisher(ledger, make_celery(url, []), HIGH_WATER)
    keeper = Keeper(store, ledger, publisher, only=manifest.job)
    held = [(manifest.batch(index), f"owner/{index}") for index in range(THREADS)]
    for index in range(WATCHED_WORKERS):
        ledger.workers.announce(WORKER.model_copy(update={"name": f"{WORKER.name}{index}"}))
    for batch, owner in held:
        ledger.leases.claim(batch, owner=owner, weights=WORKER.weights or "")
    meter = Meter(redis)
    for _ in range(TIMES):
        ledger.workers.announce(WORKER)
        for batch, owner in held:
            ledger.leases.renew(batch, owner=owner)
    heartbeat, meter = meter.load(TIMES), Meter(redis)
    for number in range(TIMES):
        look(ledger, manifest.job, Speed())
        if number % round(STEP_SECONDS / POLL_SECONDS) == 0:
            keeper.next_step = 0.0  # the next step is due
            keeper.step()
    watch = meter.load(TIMES)
    for batch, owner in held:
        ledger.leases.release(batch, owner=owner)
    return {"heartbeat": heartbeat, "watch": watch}


def measure_worker(
    redis: Redis, url: str, store: CountingStore, manifest: Manifest
) -> dict[str, Any]:
    """Measure the job in one worker, and then the worker without work."""
    ledger, engine = Ledger(connect(url)), StubEngine()
    runner = stub_runner(ledger, store, engine)  # its lease renewer is measured separately
    found: dict[str, Any] = {}
    others = redis.info("clients")["connected_clients"] - 1  # the ledger's is the worker's

    def watch() -> None:
        try:
            wait_until(lambda: len(engine.records) >= 2 * THREADS)
            first, meter, started = len(engine.records), Meter(redis), time.perf_counter()
            reads, writes = len(store.read), len(store.written)
            wait_until(lambda: len(engine.records) == manifest.batches)
            count = manifest.batches - first
            found["worker_seconds"] = (time.perf_counter() - started) / count
            time.sleep(1)  # until the last batches are written
            found["run"] = meter.load(count)
            found["reads"] = (len(store.read) - reads) / count
            found["writes"] = (len(store.written) - writes) / count
            found["read_bytes"] = fmean(store.read[reads:])
            found["written_bytes"] = fmean(store.written[writes:])
            found["kept_bytes"] = memory(redis, f"job:{manifest.job}*") / manifest.batches
            found["idle"] = idle_load(redis)
            found["connections"] = redis.info("clients")["connected_clients"] - others
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    app = make_celery(url, list(WORKER.queues))
    app.conf.worker_redirect_stdouts = False  # or they would stay redirected to Celery's log
    consume(app, WORKER.queues, "benchmark", run=runner.run, on_stop=runner.stopping.set)
    thread.join()
    return found


def wait_until(done: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError("the worker does not do its batches")
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=600)
    report(measure(parser.parse_args().batches))


def report(costs: Costs) -> None:
    """Print the costs, and the commands that make up each load."""
    for name, value in vars(costs).items():
        if not isinstance(value, Load):
            print(f"{name:16} {value if isinstance(value, str) else f'{value:,.4g}'}")
            continue
        print(f"{name:16} {value.cpu:,.1f} us of Redis")
        for line in value.lines():
            print(f"{'':16} {line}")


if __name__ == "__main__":
    main()
