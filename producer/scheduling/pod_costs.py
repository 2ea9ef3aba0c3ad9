"""Deletion costs of workers' pods, by which a scale-in in Kubernetes ends idle workers first.

A worker that claims a batch after its cost was last set may be ended all the same, and requeues it:
the order only makes that rare.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from common.ledger.ledger import Ledger
from common.ledger.locks import KEEPING_SECONDS
from producer.scheduling.one_by_one import OneByOne
from producer.scheduling.pods import POD_NAME, Pods

log = logging.getLogger(__name__)

#: The costs. The number of batches would be no better a choice, and would change all the time.
IDLE, BUSY = 0, 1

#: Seconds between two requests, so that a large fleet does not flood the API.
PAUSE_SECONDS = 0.05

#: Seconds between two looks for workers that have not claimed a batch yet.
WORKERS_SECONDS = 30.0

#: Seconds after a failure before the API is asked again, and between two lines in the log about it.
AGAIN_SECONDS, SAY_SECONDS = 10.0, 600.0

#: Seconds after the keeper's lock was last renewed in which requests begin. The rest of the time
#: that it lasts is for the one that is under way: then another keeper may act.
FRESH_SECONDS = KEEPING_SECONDS * 2 / 3

#: Seconds for which a pod is tried that may be marked busy, but has no worker any more.
GONE_SECONDS = 600.0

#: What became of a request: ``absent`` is a worker that is no pod of the namespace.
Outcome = Literal["set", "absent", "failed"]


class PodCosts:
    """The deletion costs of the pods of all workers, which a thread of its own sets.

    Only changes are written: a request when a worker becomes busy or idle, and one when it is first
    seen.
    """

    def __init__(
        self,
        ledger: Ledger,
        one_by_one: OneByOne,
        pods: Pods,
        count: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        """Look at nothing yet.

        Args:
            count: called with what became of each request.
        """
        self.ledger = ledger
        self.one_by_one = one_by_one
        self.pods = pods
        self.count = count
        self._workers: set[str] = set()  # pods of all workers at the last look for them
        self._next_workers = 0.0
        self._lock = threading.Lock()  # of all that follows
        self._is_working = False  # whether there is a thread
        self._wanted: dict[str, int] = {}
        self._held_at = 0.0  # when the keeper's lock was last renewed
        self._known: dict[str, int | None] = {}  # what pods have; None: not known
        self._absent: set[str] = set()
        self._seen: dict[str, float] = {}  # when pods last had a worker
        self._tried: dict[str, float] = {}  # when pods were last asked for, kept when looking anew
        self._failures: Counter[str] = Counter()  # of each pod since it was last set
        self._next_try = self._next_line = 0.0

    def look_anew(self) -> None:
        """Forget what pods have: another keeper may have set it."""
        with self._lock:
            self._known, self._absent, self._next_workers = {}, set(), 0.0

    def look(self, jobs: Iterable[str], held_at: float) -> None:
        """Look at who has claimed batches of open jobs, and have what has changed written.

        Args:
            held_at: when the keeper's lock was last renewed, by ``time.monotonic``.

        Raises:
            RedisError: Redis does not answer.
        """
        busy = set(self._busy(jobs))
        if time.monotonic() >= self._next_workers:
            self._workers = set(filter(None, map(pod_of, self.ledger.workers.names())))
            self._next_workers = time.monotonic() + WORKERS_SECONDS
        with self._lock:
            now = time.monotonic()
            self._seen |= dict.fromkeys(self._workers | busy, now)
            # Workers that came and ended since the last look for them, too.
            others = [
                pod
                for pod, cost in self._known.items()
                if cost != IDLE and now - self._seen.get(pod, 0.0) < GONE_SECONDS
            ]
            wanted = dict.fromkeys((*self._workers, *others), IDLE) | dict.fromkeys(busy, BUSY)
            self._seen = {pod: at for pod, at in self._seen.items() if pod in wanted}
            self._tried = {pod: at for pod, at in self._tried.items() if pod in wanted}
            self._known = {pod: cost for pod, cost in self._known.items() if pod in wanted}
            self._failures = Counter({p: n for p, n in self._failures.items() if p in wanted})
            self._absent &= self._workers | busy
            self._wanted, self._held_at = wanted, held_at
            change = self._next_change()
        if change is not None and not self._is_working:  # only this method sets it
            self._start(change[0])

    def _start(self, pod: str) -> None:
        """Start the thread, which sets this pod first."""
        self._is_working = True
        try:
            threading.Thread(target=self._work, name="pod costs", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # no more threads are allowed here
            self._is_working = False
            self._next_try = time.monotonic() + AGAIN_SECONDS
            self._say(pod, error)
            self.count("failed")

    def _busy(self, jobs: Iterable[str]) -> Iterator[str]:
        """Yield the pods of the workers that have claimed batches."""
        for job in jobs:
            with self.one_by_one(job):
                for owner in self.ledger.leases.owners(job):
                    if pod := pod_of(owner.rpartition("/")[0]):
                        yield pod

    def _work(self) -> None:
        """Write changes until there are none."""
        while True:
            with self._lock:
                change = self._next_change()
                if change is None:
                    self._is_working = False
                    return
                pod, cost = change
                self._tried[pod] = time.monotonic()
                self._known[pod] = None  # until there is an answer
            self._set(pod, cost)
            time.sleep(PAUSE_SECONDS)

    def _next_change(self) -> tuple[str, int] | None:
        """Return a pod that has another cost than it should, a busy one first; None without one."""
        now = time.monotonic()
        if now < self._next_try or now - self._held_at > FRESH_SECONDS:
            return None
        changes = (
            (self._failures[pod], -cost, self._tried.get(pod, 0.0), pod)
            for pod, cost in self._wanted.items()
            if self._known.get(pod) != cost and pod not in self._absent
        )
        _, cost, _, pod = min(changes, default=(0, 0, 0.0, ""))
        return (pod, -cost) if pod else None

    def _set(self, pod: str, cost: int) -> None:
        try:
            outcome: Outcome = "set" if self.pods.set_cost(pod, cost) else "absent"
        except Exception as error:  # whatever it is, the thread goes on
            outcome = "failed"
            self._say(pod, error)
        with self._lock:
            match outcome:
                case "set":
                    self._known[pod] = cost
                    del self._failures[pod]
                case "absent":
                    self._known.pop(pod, None)
                    self._absent.add(pod)
                case "failed":
                    self._failures[pod] += 1
                    self._next_try = time.monotonic() + AGAIN_SECONDS
        self.count(outcome)

    def _say(self, pod: str, error: Exception) -> None:
        if time.monotonic() < self._next_line:
            return
        self._next_line = time.monotonic() + SAY_SECONDS
        log.warning(
            "The deletion cost of the pod %s was not set: %s. It is tried again. Until then a "
            "scale-in may end busy workers, whose batches are requeued, before idle ones.",
            *(pod, error),
        )


def pod_of(worker: str) -> str | None:
    """Return the pod of a worker, which is named after it; None if no pod can have this name."""
    pod = worker.partition("@")[2]
    return pod if POD_NAME.fullmatch(pod) else None
