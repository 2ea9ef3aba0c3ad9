"""A pod of one container, with what a kubelet does: probes, restarts, and an end with grace.

Rules are those of ``pkg/kubelet``: nothing else is probed before the startup probe succeeds; a
container whose startup or liveness probe failed too often is ended and started again; between two
restarts the kubelet waits 10 seconds, then 20, and so on; volumes outlive containers.
"""

import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chart.drill.manifests import Probe, Template
from tests.chart.drill.sandbox import Container

#: Seconds between two looks at a pod, whatever the periods of its probes.
LOOK_SECONDS = 1.0

#: Seconds between the second end of a container and its start; twice as long after each more.
BACKOFF_SECONDS = 10.0


@dataclass(frozen=True)
class Look:
    """What probes said of a pod at one moment; None for one that was not run."""

    at: float
    pod: str
    started: float  # when the container was
    alive: bool | None
    ready: bool | None
    counts: bool  # whether the kubelet would run the readiness probe
    ending: bool


@dataclass
class Watch:
    """The results of one probe as the kubelet counts them, in a row and when they are due."""

    probe: Probe
    passed: int = 0
    failed: int = 0
    last: float = 0.0

    def is_due(self, now: float, started: float) -> bool:
        return now - started >= self.probe.delay and now - self.last >= self.probe.period - 0.5

    def count(self, now: float, passes: bool) -> None:
        self.last = now
        self.passed = self.passed + 1 if passes else 0
        self.failed = 0 if passes else self.failed + 1

    @property
    def holds(self) -> bool:
        return self.passed >= self.probe.successes

    @property
    def fails(self) -> bool:
        return self.failed >= self.probe.failures


def watch(probe: Probe | None) -> Watch | None:
    return None if probe is None else Watch(probe)


@dataclass
class Pod:
    """A pod as its API object shows it, and the thread that is its kubelet."""

    name: str
    template: Template
    start: Callable[[], Container]
    port: int  # of its HTTP server
    on_look: Callable[[Look], None]
    created: float = field(default_factory=time.monotonic)
    annotations: dict[str, str] = field(default_factory=dict)
    ready: bool = False
    ready_at: float = 0.0
    deleted: float = 0.0  # when its deletion began
    ended: float = 0.0
    codes: list[int] = field(default_factory=list)  # of containers that ended
    restarts: int = 0

    def __post_init__(self) -> None:
        self.container: Container | None = None
        self.started = 0.0
        self._deletion = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def is_active(self) -> bool:
        """Whether a ReplicaSet counts the pod."""
        return not self.deleted

    @property
    def state(self) -> str:
        if self.deleted:
            return "ending"
        return "ready" if self.ready else "not ready"

    def run(self) -> None:
        self._thread.start()

    def runs(self) -> bool:
        """Return whether its container runs, which is noticed at the next look only."""
        container = self.container
        return container is not None and container.runs()

    def delete(self) -> None:
        """Have the pod end, as a deletion does."""
        self.ready, self.deleted = False, time.monotonic()
        self._deletion.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self.name} did not end"

    def _run(self) -> None:
        start_at = 0.0
        while not self._deletion.is_set():
            now = time.monotonic()
            if self.container is None:
                if now >= start_at:
                    self._start()
            elif (code := self.container.exit_code()) is not None:
                self.codes.append(code)
                self.container, self.ready = None, False
                start_at = now + (
                    BACKOFF_SECONDS * 2 ** (self.restarts - 1) if self.restarts else 0
                )
                self.restarts += 1
            else:
                self._look(now)
            self._deletion.wait(max(0.0, now + LOOK_SECONDS - time.monotonic()))
        self._end()

    def _start(self) -> None:
        self.container, self.started = self.start(), time.monotonic()
        template = self.template
        self._startup = watch(template.startup)
        self._liveness = watch(template.liveness)
        self._readiness = watch(template.readiness)

    def _look(self, now: float) -> None:
        """Run all probes, and count those that are due."""
        has_started = self._startup is None or self._startup.holds
        first = self._liveness if has_started else self._startup
        alive = self._passes(first.probe) if first else None
        ready = self._passes(self._readiness.probe) if self._readiness else None
        if self.container is None or not self.container.runs():
            return  # it was killed meanwhile
        self.on_look(Look(now, self.name, self.started, alive, ready, has_started, ending=False))
        if first is not None and first.is_due(now, self.started):
            first.count(now, bool(alive))
            if first.fails:
                self._stop()  # the next turn starts it again
                return
        if not has_started or self._readiness is None:
            return
        if self._readiness.is_due(now, self.started):
            self._readiness.count(now, bool(ready))
        if self._readiness.holds and not self.ready:
            self.ready, self.ready_at = True, now
        elif self._readiness.fails:
            self.ready = False

    def _passes(self, probe: Probe) -> bool:
        assert self.container is not None
        if probe.command:
            return self.container.succeeds(probe.command, probe.timeout)
        try:
            url = f"http://127.0.0.1:{self.port}{probe.path}"
            with urllib.request.urlopen(url, timeout=probe.timeout) as answer:
                return 200 <= int(answer.status) < 400
        except OSError:
            return False

    def _stop(self) -> None:
        """End the container: SIGTERM, and SIGKILL after the grace period."""
        container = self.container
        if container is None:
            return
        container.terminate()
        until = time.monotonic() + self.template.grace
        while container.exit_code() is None:
            now = time.monotonic()
            if now >= until:
                container.kill()
                break
            if self._deletion.is_set() and self._readiness is not None:
                ready = self._passes(self._readiness.probe) and container.runs()
                self.on_look(Look(now, self.name, self.started, None, ready, True, ending=True))
            time.sleep(LOOK_SECONDS / 4)

    def _end(self) -> None:
        self._stop()
        if self.container is not None:
            code = self.container.exit_code()
            assert code is not None
            self.codes.append(code)
        self.ended = time.monotonic()
