"""The metrics of a keeper, its own and the fleet's, for Prometheus."""

import logging
import platform
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from common import __version__
from common.ledger.events import Event
from common.store import NoStoreError, StoreError
from producer.scheduling.fleet_metrics import FLEET_METRICS
from producer.scheduling.fleet_reading import FleetReader, FleetReading
from producer.scheduling.keeper import Keeper

log = logging.getLogger(__name__)

#: Upper ends in seconds of the ranges that durations of steps are counted in.
STEP_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0)

#: Seconds that a scrape waits for a reading of the fleet, and that an older one is good for.
WAIT_SECONDS, STALE_SECONDS = 1.5, 120.0


class KeeperMetrics:
    """What a keeper measures of itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        versions = {"version": __version__, "python": platform.python_version()}
        Gauge(
            "virnucpro_build_info",
            "1, with the versions of the program and of Python.",
            versions,
            registry=registry,
        ).labels(**versions).set(1)
        self.steps = Histogram(
            "virnucpro_keeper_step_seconds",
            "Durations of the steps in which this keeper acted.",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.last_step = Gauge(
            "virnucpro_keeper_last_step_timestamp_seconds",
            "Time of the last step that this keeper did as the acting one; first, of its start.",
            registry=registry,
        )
        self.last_step.set_to_current_time()
        self.errors = Counter(
            "virnucpro_keeper_step_errors",
            "Steps that ended with an error of Redis or of the store.",
            ["cause"],
            registry=registry,
        )
        self.requeued = Counter(
            "virnucpro_keeper_requeued_batches",
            "Batches that this keeper requeued, as a lease or a message was lost.",
            ["reason"],
            registry=registry,
        )
        self.pod_costs = Counter(
            "virnucpro_keeper_pod_costs",
            "Deletion costs of workers' pods that this keeper set, or tried to.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("set", "absent", "failed"):
            self.pod_costs.labels(outcome)
        for cause in ("redis", "store", "no_store"):
            self.errors.labels(cause)
        for reason in ("lease_lost", "message_lost"):
            self.requeued.labels(reason)
        self.turned_at = 0.0  # when the keeper's loop was last known to go on
        self.turn()

    def turn(self) -> None:
        """Note that the keeper goes on, or waits for Redis."""
        self.turned_at = time.monotonic()

    def count(self, event: Event) -> None:
        """Count a batch that the keeper requeued."""
        self.requeued.labels(event.event).inc()

    def count_pod_cost(self, outcome: str) -> None:
        """Count a deletion cost that was set, or was not."""
        self.pod_costs.labels(outcome).inc()

    @contextmanager
    def step(self, keeper: Keeper) -> Iterator[None]:
        """Measure one step of a keeper."""
        self.turned_at = started = time.monotonic()
        try:
            yield
        except (RedisError, StoreError) as error:
            self.errors.labels(cause_of(error)).inc()
            raise
        finally:
            self.turned_at = time.monotonic()
        if keeper.acting:
            self.steps.observe(self.turned_at - started)
            self.last_step.set_to_current_time()


def cause_of(error: RedisError | StoreError) -> str:
    """Return the label of an error: a new fleet has no store before it is made."""
    if isinstance(error, NoStoreError):
        return "no_store"
    return "store" if isinstance(error, StoreError) else "redis"


class FleetCollector(Collector):
    """A collector of the fleet's metrics, if its keeper acts; it never waits long for Redis.

    Each scrape has the fleet read by a thread, and waits for it a little. If that does not suffice,
    it gets the reading before.
    """

    def __init__(self, reader: FleetReader, keeper: Keeper) -> None:
        """Read nothing yet.

        Args:
            reader: has a connection of its own, with short time-outs.
        """
        self.reader = reader
        self.keeper = keeper
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_up = False
        self._reading: tuple[float, FleetReading] | None = None  # with the time of its end

    def describe(self) -> Iterable[Family]:
        own = [keeper_acting(None), redis_up(None), reading_age(None)]
        return own + [metric.family(None) for metric in FLEET_METRICS]

    def collect(self) -> Iterator[Family]:
        self._read()
        is_acting, is_up, reading = self.keeper.acting, self._is_up, self._reading
        yield keeper_acting(is_acting)
        yield redis_up(is_up)
        if is_acting and is_up and reading is not None:
            age = time.monotonic() - reading[0]
            if age <= STALE_SECONDS:
                yield reading_age(age)
                yield from (metric.family(reading[1]) for metric in FLEET_METRICS)

    def _read(self) -> None:
        """Have the fleet read, and wait for it a little."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(WAIT_SECONDS)

    def _run(self) -> None:
        self._is_up = False
        try:
            self.reader.ledger.redis.ping()
            self._is_up = True
            if self.keeper.acting:
                reading = self.reader.read()
                self._reading = time.monotonic(), reading
        except RedisError as error:
            self._is_up = False
            log.debug("The fleet could not be read: %s", error)
        except Exception:
            log.exception("The fleet could not be read.")


def gauge(name: str, help_: str, value: float | None) -> Family:
    return GaugeMetricFamily(f"virnucpro_{name}", help_, value=value)


def keeper_acting(value: float | None) -> Family:
    return gauge("keeper_acting", "1 for the keeper that acts and has the fleet's metrics.", value)


def redis_up(value: float | None) -> Family:
    return gauge("redis_up", "1 if Redis answers this keeper.", value)


def reading_age(value: float | None) -> Family:
    help_ = "Age of the fleet's metrics, which are older if Redis is slow."
    return gauge("fleet_reading_age_seconds", help_, value)


def make_registry(keeper: Keeper, reader: FleetReader) -> tuple[CollectorRegistry, KeeperMetrics]:
    """Return all metrics of a keeper, and those to write."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    own = KeeperMetrics(registry)
    registry.register(FleetCollector(reader, keeper))
    return registry, own
