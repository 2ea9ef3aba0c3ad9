"""The metrics of the whole fleet: their names, and their values in a reading.

A number that only grows is a counter. What ``producer retry`` or ``resume`` may take back, such as
the batches that are done, is a gauge: Prometheus would take a counter that falls for a new one, and
add it once more.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family

from common.ledger.progress import Progress
from common.ledger.workers import WorkerInfo
from common.model_source import ModelSource
from common.rungs import FIRST_RUNGS, Rung, ladder
from common.wire.dead_letters import KINDS
from common.wire.queues import pool_name
from producer.scheduling.fleet_reading import FleetReading, JobReading

#: The values of a metric: the labels of each, and the number.
Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class Metric:
    """A metric: its name without prefix, its help text and its labels."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[FleetReading], Samples]
    is_counter: bool = False

    def family(self, reading: FleetReading | None) -> Family:
        """Return the metric with its values; without any for None."""
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        family = kind(f"virnucpro_{self.name}", self.help, labels=self.labels)
        for labels, value in [] if reading is None else self.samples(reading):
            family.add_metric(labels, value)
        return family


def of_fleet(
    name: str, help_: str, labels: str, samples: Callable[[FleetReading], Samples]
) -> Metric:
    return Metric(name, help_, tuple(labels.split()), samples)


def of_jobs(
    name: str,
    help_: str,
    value: Callable[[JobReading], float | None],
    *,
    only_open: bool = False,
    is_counter: bool = False,
) -> Metric:
    """Return a metric with a value for each job that has one."""

    def samples(reading: FleetReading) -> Iterator[tuple[tuple[str, ...], float]]:
        for job in reading.open_jobs if only_open else reading.jobs:
            if (number := value(job)) is not None:
                yield (job.progress.job,), number

    return Metric(f"job_{name}", help_, ("job_name",), samples, is_counter)


def of_counts(name: str, help_: str, count: Callable[[Progress], int]) -> Metric:
    return of_jobs(name, help_, lambda job: count(job.progress))


def of_rungs(name: str, help_: str, value: Callable[[Progress, Rung], float]) -> Metric:
    """Return a metric with a value for each rung of each job."""

    def samples(reading: FleetReading) -> Iterator[tuple[tuple[str, ...], float]]:
        for job in reading.jobs:
            for rung in ladder(job.progress.first_rung):
                yield (job.progress.job, rung), value(job.progress, rung)

    return Metric(f"job_{name}", help_, ("job_name", "rung"), samples)


def queues(reading: FleetReading) -> Samples:
    for queue, (job, rung, messages) in sorted(reading.queues.items()):
        yield (queue, job.pool, job.model, rung, job.priority), messages


def demand(reading: FleetReading) -> Samples:
    if reading.demand is not None:
        models = dict.fromkeys(reading.demand, "") | models_of_pools(reading)
        for pool, model in sorted(models.items()):
            yield (pool, model), reading.demand.get(pool, 0)


def models_of_pools(reading: FleetReading) -> dict[str, str]:
    served = {pool: worker.model for worker in reading.workers for pool in pools_of(worker)}
    return served | {job.progress.pool: job.progress.model for job in reading.open_jobs}


def pools_of(worker: WorkerInfo) -> list[str]:
    """Return the pools that a worker serves."""
    model = ModelSource(worker.model)
    return [pool for rung in FIRST_RUNGS if (pool := pool_name(model, rung)) in worker.queues]


def workers(reading: FleetReading) -> Samples:
    counts = Counter((w.model, str(w.precision), state_of(w)) for w in reading.workers)
    return sorted(counts.items())


def state_of(worker: WorkerInfo) -> str:
    if worker.weights is None:
        return "loading"
    return "ready" if worker.takes else "hanging"


def pool_workers(reading: FleetReading) -> Samples:
    ready = [worker for worker in reading.workers if state_of(worker) == "ready"]
    counts = Counter(pool for worker in ready for pool in pools_of(worker))
    for pool, model in sorted(models_of_pools(reading).items()):
        yield (pool, model), counts[pool]


def dead_letters(reading: FleetReading) -> Samples:
    found = reading.dead_letters
    return [] if found is None else one_label((kind, found.get(kind, 0)) for kind in KINDS)


def one_label(values: Iterable[tuple[str, float]]) -> Samples:
    return [((label,), value) for label, value in values]


def one_value(value: float | None) -> Samples:
    return [] if value is None else [((), value)]


def job_info(reading: FleetReading) -> Samples:
    for job in reading.jobs:
        found = job.progress
        labels = (found.job, found.model, found.pool, str(found.priority), str(found.state))
        yield labels, 1


def blocked(reading: FleetReading) -> Samples:
    return [((job.progress.job, job.blocked), 1) for job in reading.jobs if job.blocked]


def eta(job: JobReading) -> float | None:
    left = job.progress.tokens - job.progress.tokens_done
    return left / job.tokens_per_second if job.tokens_per_second else None


#: The metrics of a job that are counters of the ledger: help text and value.
COUNTS: dict[str, tuple[str, Callable[[Progress], int]]] = {
    "batches": ("Batches of the job.", lambda job: job.batches),
    "batches_done": ("Batches with nothing left to do.", lambda job: job.batches_done),
    "batches_published": ("Batches that were published.", lambda job: job.published),
    "batches_waiting": ("Published batches that no worker has claimed.", lambda job: job.waiting),
    "batches_leased": ("Batches that are claimed by workers.", lambda job: job.leased),
    "batches_failed": ("Batches that failed.", lambda job: job.batches_failed),
    "batches_poisoned": (
        "Batches with sequences that end their worker.",
        lambda job: job.counts["batches_poisoned"],
    ),
    "rows": (
        "Sequences of the job that are computed: of identical ones the first.",
        lambda job: job.records,
    ),
    "rows_done": ("Sequences with an embedding.", lambda job: job.rows_done),
    "rows_retried": ("Sequences that were retried at a higher rung.", lambda job: job.rows_retried),
    "rows_quarantined": ("Sequences in quarantine.", lambda job: job.rows_quarantined),
    "tokens": ("Tokens of the job.", lambda job: job.tokens),
    "tokens_done": ("Tokens of the sequences with an embedding.", lambda job: job.tokens_done),
}

FLEET_METRICS: tuple[Metric, ...] = (
    of_fleet(
        "demand_batches",
        "Batches left of the open jobs of a pool: queued, leased or not published.",
        "pool model",
        demand,
    ),
    of_fleet(
        "pool_workers", "Worker processes that are ready for a pool.", "pool model", pool_workers
    ),
    of_fleet("workers", "Worker processes that are alive.", "model precision state", workers),
    of_fleet(
        "queue_messages",
        "Messages waiting in a queue of an open job.",
        "queue pool model rung priority",
        queues,
    ),
    of_fleet(
        "jobs", "Jobs that Redis knows.", "state", lambda reading: one_label(reading.states.items())
    ),
    of_fleet(
        "jobs_unlisted",
        "Jobs that have no metrics of their own, as there are too many.",
        "",
        lambda reading: one_value(reading.unlisted),
    ),
    of_fleet(
        "leases",
        "Batches that are claimed by workers.",
        "",
        lambda reading: one_value(sum(job.progress.leased for job in reading.open_jobs)),
    ),
    of_fleet(
        "dead_letters",
        "Messages that no worker could process, the last 1000.",
        "kind",
        dead_letters,
    ),
    of_fleet(
        "last_dead_letter_timestamp_seconds",
        "Time of the last dead letter.",
        "",
        lambda reading: one_value(reading.last_dead_letter),
    ),
    of_fleet(
        "redis_memory_used_bytes",
        "Memory that Redis uses.",
        "",
        lambda reading: one_value(reading.memory.get("used_memory")),
    ),
    of_fleet(
        "redis_memory_max_bytes",
        "Memory that Redis may use; 0 for no limit.",
        "",
        lambda reading: one_value(reading.memory.get("maxmemory")),
    ),
    of_fleet(
        "job_info",
        "1 for each job that is open or ended in the last hour.",
        "job_name model pool priority state",
        job_info,
    ),
    *(of_counts(name, help_, count) for name, (help_, count) in COUNTS.items()),
    of_jobs(
        "leases_lost",
        "Leases of the job that were lost, as their worker disappeared.",
        lambda job: job.progress.leases_lost,
        is_counter=True,
    ),
    of_jobs(
        "device_seconds",
        "Seconds of forward passes for the job, on all devices together.",
        lambda job: job.progress.device_seconds,
        is_counter=True,
    ),
    of_rungs("batches_at_rung", "Batches with a result at a rung.", Progress.batches_at),
    of_rungs("rows_embedded_at_rung", "Sequences embedded at a rung.", Progress.embedded_at),
    of_rungs("rows_unstable_at_rung", "Sequences not finite at a rung.", Progress.unstable_at),
    of_jobs(
        "batches_crashing",
        "Batches without a result that ended their worker at least twice.",
        lambda job: job.crashing,
        only_open=True,
    ),
    of_fleet(
        "job_blocked",
        "1 for an open job that no worker can go on with.",
        "job_name reason",
        blocked,
    ),
    of_jobs(
        "tokens_per_second",
        "Tokens per second of the last two minutes.",
        lambda job: job.tokens_per_second,
        only_open=True,
    ),
    of_jobs("eta_seconds", "Seconds left at the current speed.", eta, only_open=True),
    of_jobs("created_timestamp_seconds", "Time of submission.", lambda job: job.progress.created),
    of_jobs("ended_timestamp_seconds", "Time of the end.", lambda job: job.ended),
)
