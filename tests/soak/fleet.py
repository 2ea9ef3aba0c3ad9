"""The fleet under test: workers, keepers and Redis, which are restarted when they end."""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.local.processes import start_dependent, wait_or_kill
from tests.support.clocks import Clock, make_clock
from tests.support.previous import checkout_previous
from tests.support.processes import clean_environment, wait_until
from tests.support.redis_servers import HOST, RedisServer, free_port, running_redis
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

WORKERS, KEEPERS = 4, 2

#: Seconds that every message to or from Redis takes, as on a slow network. This widens the gaps
#: between the steps of a batch, in which its worker may be killed, and makes the job last longer:
#: two cores do 120 batches a second without it, 36 with it.
NETWORK_SECONDS = 0.015

#: Seconds between the end of a process and its restart, as in Kubernetes.
RESTART_SECONDS = 3.0

#: Seconds that the fleet has to start, and a process to stop.
START_SECONDS, STOP_SECONDS = 180.0, 40.0

#: Seconds for a keeper to answer whether it acts; one without a network does not answer.
METRICS_SECONDS = 3.0


@dataclass
class Service:
    """A command that is restarted whenever it ends."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    start_at: float = 0.0
    #: Whether a fault is in progress, so that no other may begin.
    busy: bool = False
    #: Exit codes of ends that no fault caused.
    ends: list[int] = field(default_factory=list)
    #: All children that it ever had, to end those that outlived their parent.
    children: set[psutil.Process] = field(default_factory=set)
    asked_to_end: bool = False

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    @property
    def child(self) -> psutil.Process | None:
        """The worker process that a supervisor has at this moment."""
        if not self.is_up:
            return None
        found = psutil.Process(self.pid).children()
        self.children.update(found)
        return found[0] if found else None

    def start(self) -> None:
        self.asked_to_end = False
        # Through a pipe, since a limit on the size of files must not apply to the log.
        with self.log.open("ab") as log:
            pipe = subprocess.Popen(
                ["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True
            )
        assert pipe.stdin is not None
        self.process = start_dependent(self.command, env=self.environment, output=pipe.stdin)
        pipe.stdin.close()

    def send(self, number: signal.Signals) -> None:
        """Send a signal that ends the command."""
        self.asked_to_end = True
        with suppress(ProcessLookupError):
            psutil.Process(self.pid).send_signal(number)

    def tend(self, now: float) -> None:
        """Restart the command if it has ended and ``RESTART_SECONDS`` have passed."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return
            if not self.asked_to_end:
                self.ends.append(code)
            self.process, self.start_at = None, now + RESTART_SECONDS
        elif now >= self.start_at:
            self.start()

    def end(self) -> None:
        """End the command for good, and all children that are left."""
        if self.process is not None:
            wait_or_kill(self.process, STOP_SECONDS)
        for child in self.children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@dataclass(frozen=True)
class Keeper:
    service: Service
    metrics_port: int

    def is_acting(self) -> bool:
        """Return whether the keeper's metrics say that it is acting."""
        url = f"http://{HOST}:{self.metrics_port}/metrics"
        with suppress(OSError), urllib.request.urlopen(url, timeout=METRICS_SECONDS) as answer:
            return re.search(rb"^virnucpro_keeper_acting 1", answer.read(), re.M) is not None
        return False


@dataclass(frozen=True)
class SoakFleet:
    """Redis, a network in front of it, and the processes that reach Redis through that network."""

    redis: RedisServer
    network: TcpProxy
    ledger: Ledger  # not through the network
    environment: Mapping[str, str]
    store: Path
    logs: Path
    workers: list[Service]
    keepers: list[Keeper]
    clock: Clock | None  # of Redis; None without libfaketime
    previous: list[Service]  # a worker and a keeper of the version before; none without history

    @property
    def services(self) -> list[Service]:
        return [*self.workers, *(keeper.service for keeper in self.keepers)]

    @property
    def mounted_elsewhere(self) -> Path:
        """Where the store is while it is not mounted."""
        return self.store.with_name(f"{self.store.name}.away")

    def tend(self) -> None:
        for service in self.services:
            service.tend(time.monotonic())

    def wait_until(self, condition: Callable[[], object], seconds: float) -> None:
        def tended() -> object:
            self.tend()
            return condition()

        wait_until(tended, seconds)

    def wait_for_workers(self) -> None:
        def are_up() -> bool:
            return sum(map(has_weights, self.ledger.workers.all())) >= len(self.workers)

        self.wait_until(are_up, START_SECONDS)


def has_weights(worker: WorkerInfo) -> bool:
    return worker.weights is not None


@contextmanager
def running_fleet(folder: Path, model: Path) -> Iterator[SoakFleet]:
    """Run the fleet with its data and its logs in a folder."""
    logs, store = folder / "logs", folder / "store"
    logs.mkdir()
    clock = make_clock(folder / "redis-clock")
    with (
        running_redis(folder / "redis", environment=clock and clock.environment) as redis,
        tcp_proxy(redis.port) as network,
    ):
        network.delay = NETWORK_SECONDS
        environment = clean_environment(
            VIRNUCPRO_BROKER_URL=f"redis://{HOST}:{network.port}/0",
            VIRNUCPRO_STORE=f"file://{store}",
            OMP_NUM_THREADS="1",
        )
        worker = ["workers.cli", "start", f"--model={model}", "--gpus=none"]
        ports = [free_port() for _ in range(KEEPERS)]

        def service(name: str, *arguments: str, **more: str) -> Service:
            command = [sys.executable, "-m", *arguments]
            return Service(name, command, {**environment, **more}, logs / f"{name}.log")

        keeper = ["producer.cli", "keeper"]
        keepers = [
            Keeper(
                service(f"keeper-{n}", *keeper, f"--metrics={HOST}:{port}"),
                port,
            )
            for n, port in enumerate(ports)
        ]
        earlier = checkout_previous(folder / "previous")
        # Without the second, Python would look into the working folder first: for this version.
        path = {"PYTHONPATH": str(earlier), "PYTHONSAFEPATH": "1"}
        previous = [
            service("previous-worker", *worker, **path),
            service("previous-keeper", *keeper, f"--metrics={HOST}:{free_port()}", **path),
        ]
        fleet = SoakFleet(
            redis=redis,
            network=network,
            ledger=Ledger(redis.client),
            environment=environment,
            store=store,
            logs=logs,
            workers=[service(f"worker-{n}", *worker) for n in range(WORKERS)],
            keepers=keepers,
            clock=clock,
            previous=[] if earlier is None else previous,
        )
        try:
            yield fleet
        finally:
            ours = [*fleet.services, *fleet.previous]
            for each in ours:
                if each.is_up:
                    each.send(signal.SIGTERM)
            for each in ours:
                each.end()
