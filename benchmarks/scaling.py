"""A simulation of many GPUs that share one producer, one Redis and one store.

    python -m benchmarks.scaling [--gpus 1 2 4 ...] [--model NAME] [--include mean]
                                 [--store s3] [--folder-speed 2000]

It shows at how many GPUs each shared part becomes the bottleneck, with the costs that
``benchmarks.costs`` measured.
"""

import argparse
import heapq
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.costs import MEASURED, STAGING_RATE, Costs
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
    "esm2_t6_8M_UR50D": 11_500_000,
    "esm2_t33_650M_UR50D": 375_000,
    "esm2_t36_3B_UR50D": 100_000,
}

#: The parts that a batch waits for, one after another, in a thread of a worker.
ROUTE = ("producer", "Redis", "store reads", "GPU", "store writes", "store bandwidth", "Redis")

#: Number of rounds of all threads before the measurement begins, and during it.
WARM_UP, WATCHED = 5, 10

#: Assumed relative deviation of a batch's time on a GPU from the average.
SPREAD = 0.1


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

    @property
    def demands(self) -> dict[str, float]:
        """Seconds that each shared part needs for a batch."""
        batch, store, costs = self.batch, self.store, self.costs
        writes = costs.stage_writes + costs.writes * store.requests(batch.written)
        return {
            "producer": batch.read / STAGING_RATE + 1 / costs.publish_rate,
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

    def busy(self, gpus: int, *, staged: bool = False) -> dict[str, float]:
        """Return the share of time that each part is busy, if jobs follow one another.

        Args:
            staged: whether everything is staged already, so that the producer has no work.
        """
        anyway, worker = self.redis_share
        beside = min(anyway + gpus * worker, 0.99)
        demands = self.demands
        demands["Redis"] /= 1 - beside
        if staged:
            demands["producer"] = 0.0
        busy = simulate(gpus, self.gpu_seconds, demands)
        return busy | {"Redis": beside + (1 - beside) * busy["Redis"]}

    @property
    def around(self) -> float:
        """Seconds per batch in which no GPU works at a single job: staging and fetching."""
        return self.demands["producer"] + self.batch.written / self.costs.fetch_rate

    def one_job(self, gpus: int) -> float:
        """Return the tokens/s of one job alone, which is staged, then computed, then fetched."""
        rate = gpus * self.busy(gpus, staged=True)["GPU"] / self.gpu_seconds
        return self.batch.tokens / (self.around + 1 / rate)


def fleet_of(model: str, form: OutputForm, store: StoreLimits, costs: Costs) -> Fleet:
    batch = typical_batch(MODELS[model], form)
    seconds = batch.tokens / TOKENS_PER_SECOND[model]
    return Fleet(batch=batch, gpu_seconds=seconds, store=store, costs=costs)


def typical_batch(spec: ModelSpec, form: OutputForm) -> TypicalBatch:
    """Return the first batch that the producer would cut from many proteins."""
    budget = Budget(tokens=batch_tokens(spec, on_gpu=True, workers=1))
    records, _, size, _ = next(cut_batches(without_originals(proteins()), budget, form, spec))
    per_record, per_residue = shard_bytes(form, spec.dim)
    return TypicalBatch(
        tokens=size.tokens,
        read=len(encode_batch(records)),
        written=per_record * size.records + per_residue * size.residues,
    )


def proteins() -> Iterator[Record]:
    """Yield proteins with the lengths that ``benchmarks.producer`` writes, without end."""
    draw, row = random.Random(0), 0
    while True:
        length = max(30, int(draw.lognormvariate(5.67, 0.64)))
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


def table(fleet: Fleet, counts: Sequence[int]) -> Iterator[str]:
    """Yield the simulated fleet as lines of Markdown, without parts that have no limit."""
    own = fleet.batch.tokens / fleet.gpu_seconds
    full = {part: gpus for part, gpus in fleet.full_at().items() if gpus < math.inf}
    yield f"| GPUs | million tokens/s | of linear | one job alone | {' | '.join(full)} |"
    yield "| ---: " * (4 + len(full)) + "|"
    for gpus in counts:
        busy, linear = fleet.busy(gpus), gpus * own
        shares = [busy["GPU"], fleet.one_job(gpus) / linear, *(busy[part] for part in full)]
        cells = [str(gpus), f"{1e-6 * busy['GPU'] * linear:.4g}", *(f"{s:.1%}" for s in shares)]
        yield f"| {' | '.join(cells)} |"
    found = (f"{part} at {full[part]:,.0f}" for part in sorted(full, key=full.__getitem__))
    yield f"\nNumber of GPUs that keeps each part busy: {', '.join(found)}."
    half = fleet.gpu_seconds / fleet.around
    yield f"At {half:.1f} GPUs, staging and fetching one job take as long as computing it."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    counts = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    parser.add_argument("--gpus", type=int, nargs="+", default=counts)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D", choices=TOKENS_PER_SECOND)
    parser.add_argument("--include", default="mean", choices=["mean", "per_residue"])
    parser.add_argument("--store", default="s3", choices=["s3", "folder"])
    parser.add_argument("--folder-speed", type=float, default=2000, help="MB/s")
    options = parser.parse_args()
    form = OutputForm(include=(options.include,), max_residues=1022)
    store = S3 if options.store == "s3" else folder(1e6 * options.folder_speed)
    fleet = fleet_of(options.model, form, store, MEASURED)
    print(fleet.batch, end="\n\n")
    print(*table(fleet, options.gpus), sep="\n")


if __name__ == "__main__":
    main()
