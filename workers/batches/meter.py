"""The meter of a worker process: its running batches, and its speed over the last minute."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from common.ledger.workers import CurrentBatch
from common.wire.messages import Batch
from workers.engine.flight import PackDone
from workers.runtime import metrics, watchdog

#: Seconds over which speeds are averaged.
WINDOW_SECONDS = 60.0

#: Seconds for which a batch must run before its progress is news. Most batches are done sooner, and
#: their results say how a job goes on.
NEWS_SECONDS = 1.0

#: Seconds between two looks at the device's memory, and those that one may take.
MEMORY_SECONDS, LOOK_SECONDS = 5.0, 60.0

#: Bytes of the device that are used, and all of them; None for a device without its own.
Memory = tuple[int, int] | None


class RunningBatch:
    """A batch that runs, and the tokens of it that are done. Its own thread alone changes it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.began = time.monotonic()
        self.tokens = 0.0

    def current(self, now: float) -> CurrentBatch:
        batch = self.batch
        return CurrentBatch(
            job=batch.job,
            batch=batch.index,
            rung=batch.rung,
            tokens=int(self.tokens),
            seconds=round(now - self.began, 1),
        )


class Work(NamedTuple):
    """The work of a process until a moment."""

    time: float  # monotonic
    tokens: float
    busy_seconds: float


class Meter:
    """Counts the work of a process; all of its threads may use it.

    Args:
        read_memory: asks the device, which may not answer: called by threads of batches alone.
    """

    def __init__(self, read_memory: Callable[[], Memory] = lambda: None) -> None:
        self._read_memory = read_memory
        self._lock = threading.Lock()
        self._running: dict[int, RunningBatch] = {}
        self._tokens = self._busy_seconds = 0.0
        self._seen: deque[Work] = deque()
        self._told: list[float] = []
        self._memory: Memory = None
        self._memory_read_at = float("-inf")

    def start(self) -> None:
        """Measure speeds from now on, once the model is loaded."""
        self._seen.append(Work(time.monotonic(), 0, 0))
        self.read_memory()

    @contextmanager
    def running(self, batch: Batch) -> Iterator[RunningBatch]:
        """Count a batch as running."""
        running = RunningBatch(batch)
        with self._lock:
            self._running[id(running)] = running
        metrics.add("running_batches", 1)
        try:
            yield running
        finally:
            with self._lock:
                del self._running[id(running)]
            metrics.add("running_batches", -1)

    def counter(self, running: RunningBatch, tokens: int) -> Callable[[PackDone], None]:
        """Return a function that counts the packs of a running batch's next part.

        Args:
            tokens: of the part, as its job counts them; the engine's are others.
        """
        before = running.tokens

        def count(pack: PackDone) -> None:
            per_token = tokens / pack.batch_tokens
            running.tokens = before + per_token * pack.batch_done
            with self._lock:
                self._tokens += per_token * pack.tokens
                self._busy_seconds += pack.seconds
            metrics.add("packs_total", 1)
            metrics.add("pack_tokens_total", pack.tokens)
            metrics.add("pack_room_tokens_total", max(pack.room, pack.tokens))
            metrics.add("device_busy_seconds_total", pack.seconds)

        return count

    def read_memory(self) -> None:
        """Read how much of the device's memory is used, unless it was read a moment ago."""
        now = time.monotonic()
        if now - self._memory_read_at < MEMORY_SECONDS:
            return
        self._memory_read_at = now
        with watchdog.limit("Asking the device for its memory", LOOK_SECONDS):
            self._memory = self._read_memory()
        if self._memory is not None:
            used, total = self._memory
            metrics.put("device_memory_used_bytes", used)
            metrics.put("device_memory_bytes", total)

    def has_news(self) -> bool:
        """Whether a batch that runs for a while has come further since ``entry`` was asked."""
        now = time.monotonic()
        with self._lock:
            running = list(self._running.values())
        late = any(now - batch.began >= NEWS_SECONDS for batch in running)
        return late and [batch.tokens for batch in running] != self._told

    def entry(self) -> dict[str, Any]:
        """Return what the process does, as fields of its entry in the ledger."""
        now = time.monotonic()
        with self._lock:
            running = list(self._running.values())
            self._told = [batch.tokens for batch in running]
            speed, busy = self._speed(Work(now, self._tokens, self._busy_seconds))
        used, total = self._memory or (None, None)
        return {
            "tokens_per_second": speed,
            "busy": busy,
            "memory_used": used,
            "memory_total": total,
            "current": tuple(batch.current(now) for batch in running),
        }

    def _speed(self, work: Work) -> tuple[float | None, float | None]:
        """Return tokens per second, and the share of the time in which the device computed."""
        if not self._seen:
            return None, None
        self._seen.append(work)
        while len(self._seen) > 2 and self._seen[0].time < work.time - WINDOW_SECONDS:
            self._seen.popleft()
        then = self._seen[0]
        seconds = max(work.time - then.time, 1e-3)
        speed = (work.tokens - then.tokens) / seconds
        busy = min(1.0, (work.busy_seconds - then.busy_seconds) / seconds)
        return round(speed, 1), round(busy, 3)
