"""The fleet's metrics for Prometheus, read from the ledger at each scrape."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from common.errors import UserError
from common.ledger.ledger import Ledger
from common.ledger.progress import JobState, Progress
from common.ledger.speed import Speed
from common.wire.dead_letters import DeadLetters
from common.wire.queues import Queues
from producer.scheduling.keeper import Keeper

#: The metrics of a job by name: help text, and value in the job's progress.
JOB_METRICS: dict[str, tuple[str, Callable[[Progress], int]]] = {
    "batches": ("Batches of the job", lambda job: job.batches),
    "batches_done": ("Batches that are done", lambda job: job.batches_done),
    "batches_published": ("Batches that were published to the queue", lambda job: job.published),
    "batches_waiting": ("Published batches that no worker has claimed", lambda job: job.waiting),
    "batches_leased": ("Batches that are claimed by workers", lambda job: job.leased),
    "batches_failed": ("Batches that failed", lambda job: job.batches_failed),
    "leases_lost": ("Batches whose worker disappeared", lambda job: job.leases_lost),
    "rows": ("Sequences of the job", lambda job: job.records),
    "rows_done": ("Sequences with an embedding", lambda job: job.rows_done),
    "rows_retried": ("Sequences that were retried at the next rung", lambda job: job.rows_retried),
    "rows_quarantined": ("Sequences that are quarantined", lambda job: job.rows_quarantined),
    "tokens": ("Tokens of the job", lambda job: job.tokens),
    "tokens_done": ("Tokens that are embedded", lambda job: job.tokens_done),
}


class FleetCollector(Collector):
    """A collector that reads the ledger, with a few commands for each job."""

    def __init__(self, ledger: Ledger, keeper: Keeper) -> None:
        self.ledger = ledger
        self.keeper = keeper
        self._speeds: dict[str, Speed] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield gauge("keeper_acting", "Whether this keeper is acting", self.keeper.acting)
        try:
            yield from self._fleet()
            up = True
        except RedisError:
            up = False
        yield gauge("redis_up", "Whether Redis answers", up)

    def _fleet(self) -> list[GaugeMetricFamily]:
        states = self.ledger.jobs.states()
        jobs = []
        for name in states:
            with self.keeper.one_by_one(name):
                if (progress := self.ledger.jobs.progress(name)) is not None:
                    jobs.append(progress)
        running = [job for job in jobs if job.state is JobState.OPEN]
        queued: dict[str, int] = {}
        for job in running:
            with self.keeper.one_by_one(job.job):
                Queues(self.ledger.redis).add_lengths(queued, job.queues.values())
        workers = self.ledger.workers.all()
        counts = [(state, sum(job.state is state for job in jobs)) for state in JobState]
        models = sorted({worker.model for worker in workers})
        return [
            labelled("jobs", "Jobs that Redis knows", "state", counts),
            labelled(
                "queue_messages",
                "Messages waiting in a queue of an open job",
                "queue",
                sorted(queued.items()),
            ),
            labelled(
                "workers",
                "Worker processes that are alive",
                "model",
                [(model, sum(w.model == model for w in workers)) for model in models],
            ),
            gauge(
                "dead_letters",
                "Messages that no worker could read",
                DeadLetters(self.ledger.redis).count(),
            ),
            gauge(
                "leases",
                "Batches that are claimed by workers",
                sum(job.leased for job in running),
            ),
            *self._jobs(running),
        ]

    def _jobs(self, jobs: list[Progress]) -> Iterator[GaugeMetricFamily]:
        for name, (help_, value) in JOB_METRICS.items():
            yield labelled(f"job_{name}", help_, "job", [(job.job, value(job)) for job in jobs])
        by_rung = GaugeMetricFamily(
            "virnucpro_job_batches_at_rung", "Batches done at a rung", labels=["job", "rung"]
        )
        for job in jobs:
            for rung in job.queues:
                by_rung.add_metric([job.job, rung], job.batches_at(rung))
        yield by_rung
        speeds = self._tokens_per_second(jobs)
        yield labelled(
            "job_tokens_per_second", "Tokens per second of the last minutes", "job", speeds.items()
        )
        left = [(job.job, job.tokens - job.tokens_done) for job in jobs]
        etas = [(job, tokens / speeds[job]) for job, tokens in left if speeds.get(job)]
        yield labelled("job_eta_seconds", "Seconds left at the current speed", "job", etas)

    def _tokens_per_second(self, jobs: list[Progress]) -> dict[str, float]:
        now = time.monotonic()
        self._speeds = {job.job: self._speeds.get(job.job, Speed(120)) for job in jobs}
        found = {job.job: self._speeds[job.job].update(now, job.tokens_done) for job in jobs}
        return {job: speed or 0.0 for job, speed in found.items()}


def gauge(name: str, help_: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"virnucpro_{name}", help_, value=value)


def labelled(
    name: str, help_: str, label: str, values: Iterable[tuple[str, Any]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"virnucpro_{name}", help_, labels=[label])
    for text, value in values:
        family.add_metric([text], value)
    return family


#: ``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT``.
ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/]*)):([0-9]{1,5})", re.ASCII)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of an address; without a host, that of this machine alone.

    Raises:
        UserError: it has another form.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 2**16:
        raise UserError(
            f"--metrics {address}: not HOST:PORT, with a port from 1 to 65535 and brackets around "
            "an IPv6 address, as in [::1]:9808. Give a free HOST:PORT, or '' for no metrics."
        )
    return found[1] or found[2] or "127.0.0.1", int(found[3])


def serve_metrics(address: str, ledger: Ledger, keeper: Keeper) -> None:
    """Serve the metrics at ``HOST:PORT`` from a thread, until the process ends.

    Raises:
        UserError: the address is invalid or in use.
    """
    host, port = split_address(address)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetCollector(ledger, keeper))
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise UserError(
            f"--metrics {address}: {error}. Give a free HOST:PORT, or '' for no metrics."
        ) from error
