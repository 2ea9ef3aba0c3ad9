"""What a drill saw: second by second, decision by decision, and what is wrong in it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chart.drill.kubelet import Look

#: Seconds for which a pod may be idle, or busy, before its cost says so.
COST_SECONDS = 5.0


@dataclass(frozen=True)
class Moment:
    """The state of everything in one second."""

    at: float
    demand: float | None  # the autoscaler's last answer; None if nobody knew
    wanted: int
    pods: int
    ready: int
    done: int | None  # batches; None while Redis does not answer
    left: int | None
    busy: tuple[str, ...]  # pods with a claimed batch
    states: dict[str, str]  # of pods that have not ended: ready, not ready, or ending


@dataclass(frozen=True)
class Candidate:
    """A pod when some were ended."""

    pod: str
    ready: bool
    cost: int
    claimed: int  # batches
    seconds: float  # for which it had some, or none
    chosen: bool


@dataclass(frozen=True)
class Decision:
    """Which pods were ended, of which."""

    at: float
    candidates: tuple[Candidate, ...]

    @property
    def wrong(self) -> list[Candidate]:
        """Return busy pods that were chosen while a ready, idle one was there."""
        idle = [
            one
            for one in self.candidates
            if not one.chosen and not one.claimed and one.ready and one.seconds > COST_SECONDS
        ]
        busy = [
            one
            for one in self.candidates
            if one.chosen and one.claimed and one.ready and one.seconds > COST_SECONDS
        ]
        return busy if idle else []


@dataclass(frozen=True)
class Seen:
    """What the probes of a pod said in one second, and what was true."""

    look: Look
    takes_batches: bool  # as the worker tells the ledger


@dataclass
class Records:
    """All that a drill saw; times are seconds since its begin."""

    speed: float  # of the autoscaler's clock
    begin: float
    moments: list[Moment] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)

    def note(self, now: float, what: str) -> None:
        self.events.append((round(now - self.begin, 1), what))

    def claimed_since(self, pod: str, now: float) -> float:
        """Return for how many seconds a pod has had a batch, or none."""
        last = [(moment.at, pod in moment.busy) for moment in self.moments]
        same = itertools.takewhile(lambda one: one[1] == last[-1][1], reversed(last))
        return now - min((at for at, _ in same), default=now)

    def document(self) -> dict[str, Any]:
        """Return what a picture shows, as JSON has it."""
        return {
            "speed": self.speed,
            "moments": [asdict(moment) for moment in self.moments],
            "decisions": [asdict(decision) for decision in self.decisions],
            "events": self.events,
        }


@dataclass(frozen=True)
class Untruth:
    """A time in which a readiness probe said what was not true."""

    pod: str
    begin: float
    seconds: float
    said: bool


def untrue(seen: Iterable[Seen]) -> list[Untruth]:
    """Return all times in which readiness probes said what was not true.

    The probe of a pod that ends must say that it is not ready, whatever it told the ledger last. A
    file of a container that was killed says nothing: no kubelet looks for it before the startup
    probe succeeds.
    """
    found = []
    for pod, ones in by_pod(seen).items():
        began: Seen | None = None
        for one in ones:
            is_ready = one.takes_batches and not one.look.ending
            is_true = one.look.ready == is_ready or not (one.look.counts or is_ready)
            if began is not None and (is_true or one.look.ready != began.look.ready):
                seconds = one.look.at - began.look.at
                found.append(Untruth(pod, began.look.at, seconds, bool(began.look.ready)))
                began = None
            if not is_true and began is None:
                began = one
        if began is not None:
            seconds = ones[-1].look.at - began.look.at
            found.append(Untruth(pod, began.look.at, seconds, bool(began.look.ready)))
    return found


def not_alive(seen: Iterable[Seen]) -> list[Look]:
    """Return the looks at which a container that ran was said not to be alive, after its start."""
    found = []
    for ones in by_pod(seen).values():
        first: dict[float, bool] = {}
        for look in (one.look for one in ones if one.look.alive is not None):
            first[look.started] = first.get(look.started, False) or bool(look.alive)
            if first[look.started] and not look.alive:
                found.append(look)
    return found


def by_pod(seen: Iterable[Seen]) -> dict[str, Sequence[Seen]]:
    found: dict[str, list[Seen]] = {}
    for one in sorted(seen, key=lambda one: one.look.at):
        found.setdefault(one.look.pod, []).append(one)
    return dict(found)
