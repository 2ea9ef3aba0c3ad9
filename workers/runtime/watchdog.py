"""The watchdog: ends a process of which a thread hangs, as nothing else can end a thread.

A GPU or a file system that no longer answers keeps its callers for ever, and Celery's time limits
do not reach threads. So whatever may hang says how long it may take. If it takes longer, the
process ends and its supervisor starts the next; leases run out, and others have its batches.
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

from workers.runtime import trace

log = logging.getLogger(__name__)

#: A process ends with this code when one of its threads hangs.
EXIT_HUNG = 71

LOOK_SECONDS = 0.5

#: Seconds after SIGTERM until a process ends though its threads have not. With what follows it is
#: below the supervisor's ``GRACE_SECONDS``.
DRAIN_SECONDS = 20.0

#: Seconds for last words, and for handing batches back: the log and Redis may hang as well.
LAST_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class Activity:
    """What a thread does, since when (``time.monotonic``), and how many seconds it may take."""

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
    """Let the body take so many seconds at most; without a limit, it is only named in reports."""
    activity = Activity(name, threading.get_ident(), time.monotonic(), seconds)
    _activities.add(activity)
    try:
        yield
    finally:
        _activities.discard(activity)


@contextmanager
def stage(name: str, seconds: float) -> Iterator[None]:
    """A span of the trace that may take so many seconds."""
    with trace.span(name), limit(name, seconds):
        yield


def overdue(activities: Iterable[Activity], now: float) -> Activity | None:
    """Of those whose deadline has passed, the one that hangs longest: others may wait for it."""
    late = (activity for activity in activities if activity.deadline < now)
    return min(late, key=lambda activity: activity.deadline, default=None)


def describe(activities: Iterable[Activity], now: float) -> str:
    """What threads do, a line for each and where in the code it is below."""
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
    """A thread that looks at what all others do, and ends the process if one of them hangs."""

    def __init__(self) -> None:
        self._drain_by = math.inf
        self._hand_back: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self, hand_back: Callable[[], None]) -> None:
        """Let the process end within ``DRAIN_SECONDS``, or end it.

        Args:
            hand_back: is called at the end of that time, if it comes to that, and has
                ``LAST_SECONDS``.
        """
        self._hand_back = hand_back
        self._drain_by = min(self._drain_by, time.monotonic() + DRAIN_SECONDS)

    def _watch(self) -> NoReturn:
        while True:
            time.sleep(LOOK_SECONDS)
            self._look(tuple(_activities), time.monotonic())

    def _look(self, activities: Sequence[Activity], now: float) -> None:
        late = overdue(activities, now)
        if late is not None:
            # Its claim is not released: the attempt counts, as the batch may be to blame.
            end_process(lambda: report_overdue(late, activities, now))
        if now > self._drain_by:
            end_process(lambda: self._give_up(activities, now))

    def _give_up(self, activities: Iterable[Activity], now: float) -> None:
        log.critical(
            "This process was told to end %g s ago, but its threads do not: it ends at once, and "
            "hands back what it has.\n%s",
            *(DRAIN_SECONDS, describe(activities, now)),
        )
        self._hand_back()


def report_overdue(late: Activity, activities: Iterable[Activity], now: float) -> None:
    same_thread = [activity for activity in activities if activity.thread == late.thread]
    log.critical(
        "'%s' takes longer than %g s: this process ends, the next one begins.\n%s",
        *(late.name, late.seconds, describe(same_thread, now)),
    )


def end_process(last_words: Callable[[], None]) -> NoReturn:
    """End at once after ``last_words``, or after ``LAST_SECONDS`` without them."""
    speaker = threading.Thread(target=last_words, name="last words", daemon=True)
    speaker.start()
    speaker.join(LAST_SECONDS)
    os._exit(EXIT_HUNG)
