"""The watchdog, which ends the process if one of its threads hangs.

A GPU or a file system that stops answering blocks its callers for ever; Celery's time limits do not
apply to threads, and Python cannot end a thread. So every operation that may hang has a time limit.
If it takes longer, the process ends and its supervisor starts a new one; the leases expire, and
other workers take over the batches.
"""

import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from workers.runtime import metrics, trace

log = logging.getLogger(__name__)

#: Exit code of a process that ended because one of its threads hung.
EXIT_HUNG = 71

#: Seconds between two looks at all activities.
LOOK_SECONDS = 0.5

#: Seconds after SIGTERM until the process ends even if its threads still run. Together with
#: ``LAST_SECONDS`` it is below the supervisor's ``GRACE_SECONDS``.
DRAIN_SECONDS = 20.0

#: Seconds for the last log message and for requeuing batches: the log and Redis may hang as well.
LAST_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Activity:
    """An operation of a thread with a time limit, on the clock of ``time.monotonic``."""

    name: str
    thread: int
    began: float
    seconds: float

    @property
    def deadline(self) -> float:
        return self.began + self.seconds


_activities: set[Activity] = set()


@contextmanager
def limit(name: str, seconds: float = math.inf) -> Iterator[None]:
    """Limit the seconds that the body may take; without a limit, it only appears in reports."""
    activity = Activity(name, threading.get_ident(), time.monotonic(), seconds)
    _activities.add(activity)
    try:
        yield
    finally:
        _activities.discard(activity)


@contextmanager
def stage(name: str, seconds: float) -> Iterator[None]:
    """Record the body as a span of the trace, time it for the metrics, and limit its seconds."""
    with trace.span(name), metrics.stage(name), limit(name, seconds):
        yield


def overdue(activities: Iterable[Activity], now: float) -> Activity | None:
    """Return the most overdue activity, for which other overdue ones may wait; None: no such."""
    late = (activity for activity in activities if activity.deadline < now)
    return min(late, key=lambda activity: activity.deadline, default=None)


def describe(activities: Iterable[Activity], now: float) -> str:
    """Return a line about each thread's activities, followed by its stack."""
    threads: dict[int, list[Activity]] = {}
    for activity in sorted(activities, key=lambda activity: activity.began):
        threads.setdefault(activity.thread, []).append(activity)
    return "\n".join(
        f"{', '.join(f'{a.name} for {now - a.began:.0f} s' for a in doing)}:\n{stack_of(thread)}"
        for thread, doing in threads.items()
    )


def stack_of(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame else "  (ended)\n"


class Watchdog:
    """A thread that watches all activities, and ends the process if one of them hangs."""

    def __init__(self) -> None:
        self._drain_by = math.inf
        self._requeue: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self, requeue: Callable[[], None]) -> None:
        """Give the process ``DRAIN_SECONDS`` to end by itself, then end it.

        Args:
            requeue: called before the watchdog ends the process; it has ``LAST_SECONDS``.
        """
        self._requeue = requeue
        self._drain_by = min(self._drain_by, time.monotonic() + DRAIN_SECONDS)

    def _watch(self) -> NoReturn:
        while True:
            time.sleep(LOOK_SECONDS)
            self._look(tuple(_activities), time.monotonic())

    def _look(self, activities: Sequence[Activity], now: float) -> None:
        late = overdue(activities, now)
        if late is not None:
            # The lease is not released, so that the attempt counts: the batch may be the cause.
            end_process(lambda: report_overdue(late, activities, now))
        if now > self._drain_by:
            end_process(lambda: self._give_up(activities, now))

    def _give_up(self, activities: Iterable[Activity], now: float) -> None:
        report(
            f"This process was told to end {DRAIN_SECONDS:g} s ago, but its threads still run: it "
            "requeues its batches and ends now.",
            describe(activities, now),
        )
        self._requeue()


def report_overdue(late: Activity, activities: Iterable[Activity], now: float) -> None:
    same_thread = [activity for activity in activities if activity.thread == late.thread]
    report(
        f"'{late.name}' takes longer than {late.seconds:g} s: this process ends, and a new one is "
        "started.",
        describe(same_thread, now),
    )


def report(what: str, stacks: str) -> None:
    """Log what happened, and stacks, which keep their lines as a traceback does."""
    record = log.makeRecord(
        log.name, logging.CRITICAL, __file__, 0, "%s", (what,), None, sinfo=stacks
    )
    log.handle(record)


def end_process(last_words: Callable[[], None]) -> NoReturn:
    """End at once after ``last_words``, or after ``LAST_SECONDS`` without them."""
    speaker = threading.Thread(target=last_words, name="last words", daemon=True)
    speaker.start()
    speaker.join(LAST_SECONDS)
    os._exit(EXIT_HUNG)
