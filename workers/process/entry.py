"""What a worker process tells of itself: its entry in the ledger, and its metrics."""

import os
import socket
from collections.abc import Iterable

from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.model_source import ModelSource
from common.rungs import Rung, served_steps
from common.wire.messages import Priority
from common.wire.queues import queue_name
from common.wire.signing import MessageKeys
from workers.batches.counting import time_requests
from workers.engine.engine import Engine
from workers.process.environment import METRICS_PLACE
from workers.runtime import metrics
from workers.runtime.device import device_name


def place_of(device: str) -> str:
    """Return a word for the device: ``cpu``, or ``cuda`` and the name of the GPU."""
    return f"{device}{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"


def worker_info(
    source: ModelSource,
    device: str,
    precision: Rung,
    keys: MessageKeys,
    host: str,
    started: float,
) -> WorkerInfo:
    """Return the entry of this process in the ledger, before its weights are loaded."""
    return WorkerInfo(
        name=f"{place_of(device)}-{os.getpid()}@{host}",
        model=source.text,
        weights=None,
        device=device_name(device),
        precision=precision,
        queues=tuple(
            queue_name(source, *step, priority)
            for priority in Priority
            for step in served_steps(precision)
        ),
        keys=keys.ids,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=started,
        stage="loading",
        staging=True,
    )


def loaded_info(info: WorkerInfo, engine: Engine) -> WorkerInfo:
    """Return the entry of this process once its weights are loaded."""
    update = {
        "weights": engine.loaded.fingerprint,
        "model_digest": engine.loaded.model_digest,
        "stage": None,
        "attention": engine.attention_kernel,
    }
    return info.model_copy(update=update)


def start_metrics(
    info: WorkerInfo, device: str, *, seconds: float, clients: Iterable[Ledger]
) -> None:
    """Record metrics from now on, if the supervisor serves them.

    Args:
        device: ``cuda`` or ``cpu``.
        seconds: in which the model was loaded.
        clients: whose requests are timed.
    """
    place = os.environ.get(METRICS_PLACE)
    if place is None:
        return
    metrics.start(place, model=info.model, device=place_of(device))
    metrics.put("running_batches", 0)
    metrics.put("model_load_seconds", seconds)
    metrics.put("process_info", 1, info.device, info.precision, info.attention or "")
    for ledger in clients:
        time_requests(ledger.redis)
