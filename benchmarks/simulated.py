"""A simulated fleet: many GPUs that share one producer, one Redis and one store."""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.costs import Costs
from benchmarks.fasta import protein_lengths
from benchmarks.one_job import SPREAD, ProducerCosts, Step, Times, simulate_job
from common.embeddings.writer import shard_bytes
from common.job.output_form import OutputForm
from common.job.records import Record, encode_batch
from common.ledger.leases import RENEW_SECONDS
from common.model_specs import MODELS, ModelSpec
from common.store.s3 import PART_BYTES
from producer.input.batches import Budget, batch_tokens, cut_batches
from producer.input.identical import without_originals
from producer.scheduling.waiting import POLL_SECONDS
from workers.transport.consumer import THREADS

#: Assumed tokens per second of a worker with one H200, rounded from measurements.
TOKENS_PER_SECOND = {
    "esm2_t6_8M_UR50D": 15_000_000,
    "esm2_t33_650M_UR50D": 375_000,
    "esm2_t36_3B_UR50D": 100_000,
}

#: The parts that a batch waits for, one after another, in a thread of a worker.
ROUTE = ("producer", "Redis", "store reads", "GPU", "store writes", "store bandwidth", "Redis")

#: What the command takes of which nothing else is said.
USUAL = ProducerCosts()

#: Number of rounds of all threads before the measurement begins, and during it.
WARM_UP, WATCHED = 5, 10


@dataclass(frozen=True, kw_only=True)
class StoreLimits:
    """The limits of a store."""

    reads: float  # requests/s
    writes: float  # requests/s
    bandwidth: float  # bytes/s
    part: float  # bytes in one request of a large write

    def requests(self, size: float) -> int:
        """Return the requests to write an object: with several parts, one each and two more."""
        parts = math.ceil(size / self.part)
        return 1 if parts <= 1 else parts + 2


#: Limits of one prefix ("Best practices design patterns: optimizing Amazon S3 performance"). Its
#: bandwidth has no limit that one fleet would reach.
S3 = StoreLimits(reads=5500, writes=3500, bandwidth=math.inf, part=PART_BYTES)


def folder(bytes_per_second: float) -> StoreLimits:
    """Return the limits of a network folder; that of files per second is unknown and ignored."""
    return StoreLimits(reads=math.inf, writes=math.inf, bandwidth=bytes_per_second, part=math.inf)


@dataclass(frozen=True, kw_only=True)
class TypicalBatch:
    records: int
    tokens: int
    read: int  # bytes of its input object
    written: int  # bytes of its shard


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """One fleet with any number of GPUs."""

    batch: TypicalBatch
    gpu_seconds: float  # for a batch
    store: StoreLimits
    costs: Costs
    producer: ProducerCosts

    @property
    def demands(self) -> dict[str, float]:
        """Seconds that each shared part needs for a batch."""
        batch, store, costs = self.batch, self.store, self.costs
        writes = costs.stage_writes + costs.writes * store.requests(batch.written)
        return {
            "producer": batch.read / self.producer.staging_rate + 1 / costs.publish_rate,
            "Redis": 1e-6 * (costs.submit.cpu + costs.run.cpu),
            "store reads": costs.reads / store.reads,
            "store writes": writes / store.writes,
            "store bandwidth": (2 * batch.read + batch.written) / store.bandwidth,
        }

    @property
    def redis_share(self) -> tuple[float, float]:
        """Shares of Redis's time without any batch: a fixed one, and one for each worker."""
        costs = self.costs
        anyway = costs.alone.cpu + costs.watch.cpu / POLL_SECONDS
        worker = costs.idle.cpu - costs.alone.cpu + costs.heartbeat.cpu / RENEW_SECONDS
        return 1e-6 * anyway, 1e-6 * worker

    def full_at(self) -> dict[str, float]:
        """Return the number of GPUs that would keep each part busy all the time."""
        anyway, worker = self.redis_share
        rates = {part: seconds / self.gpu_seconds for part, seconds in self.demands.items()}
        rates["Redis"] = (rates["Redis"] + worker) / (1 - anyway)
        return {part: 1 / rate if rate else math.inf for part, rate in rates.items()}

    @property
    def gpus_of_a_file(self) -> float:
        """The number of GPUs that compute one job as fast as its file is written."""
        return self.gpu_seconds * self.producer.fetch_rate / self.batch.written

    def redis_beside(self, gpus: int) -> float:
        """Return the share of Redis's time that goes without any batch."""
        anyway, worker = self.redis_share
        return min(anyway + gpus * worker, 0.99)

    def busy(self, gpus: int) -> dict[str, float]:
        """Return the share of time that each part is busy, if jobs follow one another."""
        beside = self.redis_beside(gpus)
        demands = self.demands
        demands["Redis"] /= 1 - beside
        busy = simulate(gpus, self.gpu_seconds, demands)
        return busy | {"Redis": beside + (1 - beside) * busy["Redis"]}

    def one_job(self, gpus: int, proteins: int) -> Times:
        """Return the times of one job alone, of at least so many proteins."""
        batch, costs, producer = self.batch, self.costs, self.producer
        batches = math.ceil(proteins / batch.records)
        redis = 1e-6 / (1 - self.redis_beside(gpus))
        store, run = self.store, ("Redis", redis * costs.run.cpu / 2)
        writes = costs.writes * store.requests(batch.written)
        staging: list[Step] = [
            ("producer", self.demands["producer"]),
            ("store writes", costs.stage_writes / store.writes),
            ("store bandwidth", batch.read / store.bandwidth),
            ("Redis", redis * costs.submit.cpu),
        ]
        computing: list[Step] = [
            run,
            ("store reads", costs.reads / store.reads),
            ("GPU", self.gpu_seconds),
            ("store writes", writes / store.writes),
            ("store bandwidth", (batch.read + batch.written) / store.bandwidth),
            run,
        ]
        writing: list[Step] = [
            ("store reads", 1 / store.reads),
            ("store bandwidth", batch.written / store.bandwidth),
            ("file", batch.written / producer.fetch_rate),
        ]
        hashing = batches * batch.read / producer.hash_rate
        return simulate_job(
            batches,
            gpus,
            begin=hashing + producer.first_batch,
            staging=staging,
            computing=computing,
            writing=writing,
            tail=producer.tail,
        )

    def share_of_linear(self, gpus: int, proteins: int) -> float:
        """Return the share of the GPUs' speed that one job alone has, from submit to file."""
        batches = math.ceil(proteins / self.batch.records)
        return batches * self.gpu_seconds / gpus / self.one_job(gpus, proteins).written


def fleet_of(
    model: str,
    form: OutputForm,
    store: StoreLimits,
    costs: Costs,
    producer: ProducerCosts = USUAL,
) -> Fleet:
    batch = typical_batch(MODELS[model], form)
    seconds = batch.tokens / TOKENS_PER_SECOND[model]
    return Fleet(batch=batch, gpu_seconds=seconds, store=store, costs=costs, producer=producer)


def typical_batch(spec: ModelSpec, form: OutputForm) -> TypicalBatch:
    """Return the first batch that the producer would cut from many proteins."""
    budget = Budget(tokens=batch_tokens(spec, on_gpu=True, workers=1))
    records, _, size, _ = next(cut_batches(without_originals(proteins()), budget, form, spec))
    per_record, per_residue = shard_bytes(form, spec.dim)
    return TypicalBatch(
        records=size.records,
        tokens=size.tokens,
        read=len(encode_batch(records)),
        written=per_record * size.records + per_residue * size.residues,
    )


def proteins() -> Iterator[Record]:
    """Yield proteins with the lengths of ``benchmarks.fasta``, without end."""
    draw, row = np.random.default_rng(0), 0
    while True:
        for length in protein_lengths(draw, 1000).tolist():
            yield Record(row, f"P{row:08} protein {row}", "L" * length)
            row += 1


def simulate(
    gpus: int, gpu_seconds: float, demands: Mapping[str, float], *, seed: int = 0
) -> dict[str, float]:
    """Simulate threads of workers that take one batch after another along ``ROUTE``.

    Each shared part, and each GPU, serves one batch at a time, first come, first served.

    Args:
        gpu_seconds: seconds of a batch on a GPU, on average.
        demands: seconds that each shared part needs for a batch.

    Returns:
        The share of time that each shared part is busy, and as ``GPU`` the mean of all GPUs.
    """
    draw = random.Random(seed)
    # About the longest time of a round, whichever part the thread waits for.
    longest = THREADS * (gpu_seconds + gpus * max(demands.values()))
    begin, end = WARM_UP * longest, (WARM_UP + WATCHED) * longest
    free: defaultdict[str, float] = defaultdict(float)  # the time at which a part is free again
    busy: defaultdict[str, float] = defaultdict(float)
    # Time, thread and step of ROUTE.
    arrivals = [(0.0, thread, 0) for thread in range(gpus * THREADS)]
    while arrivals[0][0] < end:
        now, thread, step = arrivals[0]
        part = ROUTE[step]
        if part == "GPU":
            server = f"GPU {thread % gpus}"
            seconds = gpu_seconds * draw.uniform(1 - SPREAD, 1 + SPREAD)
        else:
            server, seconds = part, demands[part] / ROUTE.count(part)
        start = max(now, free[server])
        free[server] = start + seconds
        busy[part] += max(0.0, min(free[server], end) - max(start, begin))
        heapq.heapreplace(arrivals, (free[server], thread, (step + 1) % len(ROUTE)))
    return {part: busy[part] / (end - begin) / (gpus if part == "GPU" else 1) for part in ROUTE}
