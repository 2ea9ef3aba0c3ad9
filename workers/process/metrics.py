"""The metrics and the health of a worker over HTTP: one address for all its processes.

The supervisor serves them. It reads what the processes wrote to files, so that it answers at once
even if a process is frozen, and keeps the counters of those that ended.
"""

import logging
import platform
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from common import __version__
from common.http import Answer, serve
from workers.process.exit_codes import EXIT_DEVICE_LOST, EXIT_DEVICE_UNUSABLE
from workers.process.health import Health, Verdict
from workers.process.slot import Slot
from workers.runtime.metrics import DEVICE, FILES, PREFIX, PROCESS_METRICS, Described

log = logging.getLogger(__name__)

#: Exit code of a process that hung (``watchdog``, which would import PyTorch).
EXIT_HUNG = 71

#: Why a process ended, by its exit code; by a signal, it was killed.
CAUSES = {
    EXIT_DEVICE_LOST: "device_lost",
    EXIT_DEVICE_UNUSABLE: "device_unusable",
    EXIT_HUNG: "hung",
}
KILLED, FAILED = "killed", "error"

#: Times that the files are read until a process does not begin one at that moment.
TRIES = 3

SUPERVISOR_METRICS = (
    Described(
        "alive",
        "gauge",
        ("model",),
        "Whether all processes consume, load, or wait for Redis: /healthz.",
    ),
    Described(
        "ready", "gauge", ("model",), "Whether all processes have loaded their model and consume."
    ),
    Described("processes", "gauge", DEVICE, "Processes that run: 1, or 0 between two starts."),
    Described(
        "process_restarts_total",
        "counter",
        (*DEVICE, "cause"),
        "Processes that ended by themselves, and are started again, by cause.",
    ),
    Described(
        "device_losses_total",
        "counter",
        DEVICE,
        "Processes that lost their device, or were refused one that had worked.",
    ),
    Described(
        "build_info", "gauge", ("version", "python", "torch"), "1, with the versions installed."
    ),
)

FAMILIES = {
    "gauge": GaugeMetricFamily,
    "counter": CounterMetricFamily,
    "histogram": HistogramMetricFamily,
}


class WorkerMetrics(Collector):
    """The supervisor's own metrics, and the files of its processes.

    Args:
        folder: for the files; it is made if it is not there.
        model: that the processes serve.
        slots: the places of the processes, which get the folder.
    """

    def __init__(self, folder: Path, model: str, slots: Sequence[Slot], health: Health) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.model = model
        self.slots = slots
        self.health = health
        self._said: list[str] = []
        for slot in slots:
            slot.metrics = folder

    def describe(self) -> Iterator[Metric]:
        """Yield all metrics without values, those of the processes among them."""
        return map(family_of, (*SUPERVISOR_METRICS, *PROCESS_METRICS))

    def collect(self) -> Iterator[Metric]:
        model, health = (self.model,), self.health
        values: dict[str, dict[tuple[str, ...], float]] = {
            "alive": {model: health.alive},
            "ready": {model: health.ready},
            "processes": {(*model, slot.device): slot.process is not None for slot in self.slots},
            "process_restarts_total": {
                (*model, slot.device, cause): count
                for slot in self.slots
                for cause, count in ends_of(slot).items()
            },
            "device_losses_total": {(*model, slot.device): slot.losses for slot in self.slots},
            "build_info": {(__version__, platform.python_version(), torch_version()): 1},
        }
        for metric in SUPERVISOR_METRICS:
            family = family_of(metric)
            for labels, value in values[metric.name].items():
                family.add_metric(labels, value)
            yield family
        yield from self._of_processes()

    def _of_processes(self) -> list[Metric]:
        problems = [
            f"the files of the worker on {slot.where} are gone, until it is started again"
            for slot in self.slots
            if slot.ready.holds and not (self.folder / f"{FILES[0]}_{slot.place}.db").exists()
        ]
        found, problem = self._read_files()
        if problem is not None:
            problems.append(f"files cannot be read ({problem})")
        if problems and problems != self._said:
            log.warning("Metrics are missing in %s: %s.", self.folder, "; ".join(problems))
        self._said = problems
        return found

    def _read_files(self) -> tuple[list[Metric], Exception | None]:
        """Return what the processes wrote, or why it cannot be read."""
        problem: Exception | None = None
        for _ in range(TRIES):
            try:
                files = [str(file) for file in self.folder.glob("*.db") if file.stat().st_size]
                return list(MultiProcessCollector.merge(files)), None  # type: ignore[no-untyped-call]
            except (struct.error, RuntimeError, ValueError, OSError) as error:
                problem = error  # a file that is just being made, or goes with its process
        return [], problem

    def registry(self) -> CollectorRegistry:
        """Return a registry of these metrics, and of those of the supervisor's own process."""
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(self)
        return registry

    def serve(self, address: str) -> None:
        """Serve ``/metrics``, ``/healthz`` and ``/readyz`` until the process ends.

        Raises:
            UserError: the address is invalid or in use.
        """
        registry, health = self.registry(), self.health
        handlers = {
            "/metrics": lambda _: Answer(generate_latest(registry), 200, CONTENT_TYPE_LATEST),
            "/healthz": lambda _: probe(Verdict(health.alive, health.alive_reason)),
            "/readyz": lambda _: probe(Verdict(health.ready, health.ready_reason)),
        }
        serve("--metrics", address, handlers)


def ends_of(slot: Slot) -> Counter[str]:
    """Return how often the processes of a place ended, by cause."""
    ends = Counter(dict.fromkeys((*CAUSES.values(), KILLED, FAILED), 0))
    for code, count in slot.codes.copy().items():
        ends[KILLED if code < 0 else CAUSES.get(code, FAILED)] += count
    return ends


def family_of(metric: Described) -> Any:
    """Return a metric without values."""
    return FAMILIES[metric.kind](f"{PREFIX}{metric.name}", metric.meaning, labels=metric.labels)


def probe(verdict: Verdict) -> Answer:
    """Return the answer to a probe: 200, or 503 with the reason."""
    return Answer.of_text(verdict.reason, 200 if verdict.holds else 503)


def torch_version() -> str:
    """Return the version of PyTorch that is installed, without importing it."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
