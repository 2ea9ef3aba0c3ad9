"""The metrics of a worker process, in files that its supervisor serves with those of the others.

Nothing is recorded unless a process calls ``start``. ``prometheus_client`` has one file for each
process and kind of metric. Here they are named by the place of the process at its supervisor
instead of its pid: a process that is started again goes on with the counters of the one before, and
one that crashes again and again leaves no file each time.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger(__name__)

#: The beginning of the names of all metrics of workers.
PREFIX = "virnucpro_worker_"

#: Upper bounds of a histogram's buckets in seconds: of stages, which last from a millisecond to an
#: hour (a large model on a CPU); and of single requests to the store and to Redis.
STAGE_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600, 3600)
STORE_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
REDIS_BUCKETS = (0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5, 15)

#: The stages of a batch that are timed. ``watchdog.stage`` has others, for each pack.
STAGES = frozenset({"claim", "fetch", "wait", "compute", "write", "complete"})


@dataclass(frozen=True)
class Described:
    """A metric: its name without ``PREFIX``, kind and labels, and what it means."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


DEVICE = ("model", "device")

#: The metrics of a process. Their labels are few: a host has one model and up to sixteen devices.
PROCESS_METRICS = (
    Described(
        "tokens_total", "counter", (*DEVICE, "rung"), "Tokens of rows with a finite embedding."
    ),
    Described(
        "rows_total",
        "counter",
        (*DEVICE, "rung", "outcome"),
        "Sequences by outcome: embedded, unstable (not finite), poisoned (crash their worker).",
    ),
    Described(
        "batches_total",
        "counter",
        (*DEVICE, "rung", "outcome"),
        "Batches by outcome: done, unstable, poisoned, failed, requeued, skipped, dropped (lease "
        "lost), refused (dead letter).",
    ),
    Described("running_batches", "gauge", DEVICE, "Batches that the process has claimed."),
    Described(
        "stage_seconds",
        "histogram",
        ("model", "stage"),
        "Duration of the stages of a batch: claim, fetch, wait (for the device), compute, write, "
        "complete.",
        STAGE_BUCKETS,
    ),
    Described("packs_total", "counter", DEVICE, "Forward passes."),
    Described("pack_tokens_total", "counter", DEVICE, "Tokens in packs."),
    Described(
        "pack_room_tokens_total",
        "counter",
        DEVICE,
        "Tokens for which the same packs had room: the ratio is their fill.",
    ),
    Described(
        "device_busy_seconds_total",
        "counter",
        DEVICE,
        "Seconds in which the device computed: the rate is its busy share.",
    ),
    Described(
        "device_memory_used_bytes", "gauge", DEVICE, "Memory of the GPU that is used by anything."
    ),
    Described("device_memory_bytes", "gauge", DEVICE, "Memory of the GPU."),
    Described(
        "store_seconds",
        "histogram",
        ("model", "operation"),
        "Duration of requests to the store, each attempt for itself, failed ones too: read, write.",
        STORE_BUCKETS,
    ),
    Described(
        "store_errors_total", "counter", ("model", "operation"), "Requests that the store failed."
    ),
    Described(
        "redis_seconds",
        "histogram",
        ("model",),
        "Duration of requests to the ledger in Redis, a pipeline as one, failed ones too.",
        REDIS_BUCKETS,
    ),
    Described("redis_errors_total", "counter", ("model",), "Requests that Redis failed."),
    Described("model_load_seconds", "gauge", DEVICE, "Seconds in which the model was loaded."),
    Described(
        "process_info",
        "gauge",
        (*DEVICE, "device_name", "precision", "attention"),
        "1 for each process whose model is loaded.",
    ),
)

#: The values of labels whose series begin at 0 in every process.
OWN_VALUES = {"stage": sorted(STAGES), "operation": ("read", "write")}

#: How the values of several processes become one, by kind. A gauge goes with its process.
MODES: dict[str, dict[str, str]] = {"gauge": {"multiprocess_mode": "livemax"}}

#: The variable that names the folder of the files; their names without the process, and the bytes
#: of each, which are several times what it needs.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
FILES, FILE_BYTES = ("counter", "histogram", "gauge_livemax"), 1 << 18


class Recorder:
    """The metrics of this process.

    Args:
        common: the values of the labels that are the same in all of them.
    """

    def __init__(self, **common: str) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        kinds: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self.families = {
            metric.name: kinds[metric.kind](
                f"{PREFIX}{metric.name}",
                metric.meaning,
                metric.labels,
                registry=None,
                **MODES.get(metric.kind, {}),
                **({"buckets": metric.buckets} if metric.buckets else {}),
            )
            for metric in PROCESS_METRICS
        }
        self._labels = {metric.name: metric.labels for metric in PROCESS_METRICS}
        self._common = common
        self._children: dict[tuple[str, ...], Any] = {}
        # Series that begin at 0: of one that begins at 1, Prometheus sees no increase.
        for metric in PROCESS_METRICS:
            own = [OWN_VALUES.get(label, ()) for label in metric.labels if label not in DEVICE]
            for labels in product(*own) if metric.kind != "gauge" else ():
                self.child(metric.name, labels)

    def child(self, name: str, labels: tuple[str, ...]) -> Any:
        """Return one series of a metric.

        Args:
            labels: values of the labels that are not common, in their order.
        """
        key = name, *labels
        if key not in self._children:
            own = iter(labels)
            values = [self._common.get(label) or next(own) for label in self._labels[name]]
            self._children[key] = self.families[name].labels(*values)
        return self._children[key]


_recorder: Recorder | None = None


def start(place: str, *, model: str, device: str) -> None:
    """Record metrics from now on, in the folder that ``PROMETHEUS_MULTIPROC_DIR`` names.

    Args:
        place: of this process at its supervisor, which no other has at the same time.
        model: that it serves.
        device: a short name that no other process of its supervisor has, such as ``cuda0``.
    """
    global _recorder
    try:
        for name in FILES:
            allocate(Path(os.environ[FOLDER], f"{name}_{place}.db"))
    except OSError as error:
        log.warning("This process has no metrics, as their files cannot be written: %s.", error)
        return
    from prometheus_client import values

    # Before the first metric is made, as each gets its file then.
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
    _recorder = Recorder(model=model, device=device)


def allocate(file: Path) -> None:
    """Reserve the disk space of a file of metrics, which is mapped into memory.

    On a disk that is full, a write to a page without space would end the process.
    """
    if hasattr(os, "posix_fallocate"):
        with file.open("ab") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, FILE_BYTES)
            except OSError:
                if os.fstat(opened.fileno()).st_size == 0:  # not a file of metrics
                    file.unlink()
                raise


def add(name: str, amount: float, *labels: str) -> None:
    """Add to a counter, or to a gauge."""
    if _recorder is not None:
        _recorder.child(name, labels).inc(amount)


def put(name: str, value: float, *labels: str) -> None:
    """Set a gauge."""
    if _recorder is not None:
        _recorder.child(name, labels).set(value)


def observe(name: str, seconds: float, *labels: str) -> None:
    """Add a duration to a histogram."""
    if _recorder is not None:
        _recorder.child(name, labels).observe(seconds)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time the body, if it is one of ``STAGES``."""
    if _recorder is None or name not in STAGES:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        observe("stage_seconds", time.perf_counter() - began, name)


@contextmanager
def request(
    to: Literal["store", "redis"], *labels: str, is_failure: Callable[[Exception], bool]
) -> Iterator[None]:
    """Time a request in the body, and count it as an error if it raises a failure."""
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        if is_failure(error):
            add(f"{to}_errors_total", 1, *labels)
        raise
    finally:
        observe(f"{to}_seconds", time.perf_counter() - began, *labels)
