"""A trace of a worker: the spans of its threads and of its device.

Nothing is recorded unless a process calls ``start``. The file is in the Trace Event Format, which
Perfetto (ui.perfetto.dev) and chrome://tracing display.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from workers.runtime.device import DeviceEvent

DEVICE = "device"


@dataclass(frozen=True)
class Span:
    """One timed activity of a thread or of the device."""

    name: str
    track: str  # a thread, or DEVICE
    start: float  # seconds since the trace began
    seconds: float


class Recorder:
    """A collector of spans from all threads."""

    def __init__(self, device: torch.device) -> None:
        self._spans: list[Span] = []
        self._device_base = DeviceEvent(device)
        self._device_base.wait()
        self._base = time.perf_counter()

    def add(self, name: str, start: float, end: float) -> None:
        """Add a span of this thread, by ``time.perf_counter``."""
        track = threading.current_thread().name
        self._spans.append(Span(name, track, start - self._base, end - start))

    def add_device_span(self, name: str, end: DeviceEvent, seconds: float) -> None:
        ended = end.seconds_since(self._device_base)
        self._spans.append(Span(name, DEVICE, ended - seconds, seconds))

    def write(self, path: Path) -> None:
        spans = sorted(self._spans, key=lambda span: span.start)
        # The device first, then the threads in order of appearance.
        tracks = [DEVICE, *dict.fromkeys(span.track for span in spans if span.track != DEVICE)]
        names = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": tid, "args": {"name": track}}
            for tid, track in enumerate(tracks)
        ]
        events = [
            {
                "ph": "X",
                "name": span.name,
                "pid": 0,
                "tid": tracks.index(span.track),
                "ts": 1e6 * span.start,
                "dur": 1e6 * span.seconds,
            }
            for span in spans
        ]
        path.write_text(json.dumps({"traceEvents": [*names, *events]}))


_recorder: Recorder | None = None


def start(device: torch.device) -> Recorder:
    """Start recording all spans of this process."""
    global _recorder
    _recorder = Recorder(device)
    return _recorder


@contextmanager
def span(name: str) -> Iterator[None]:
    """Record the duration of the body, if a trace was started."""
    recorder = _recorder
    if recorder is None:
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        recorder.add(name, started, time.perf_counter())


def add_device_span(name: str, end: DeviceEvent, seconds: float) -> None:
    """Record a span of the device that took ``seconds`` until ``end``."""
    if _recorder is not None:
        _recorder.add_device_span(name, end, seconds)
