"""The schedule of faults: random pauses between them, and the time at which each is undone."""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

#: A function of the fault's name that causes the fault; False if it is impossible at the moment.
Fault = Callable[[str], bool]

#: Seconds until the next attempt, after no fault was possible.
TRY_AGAIN_SECONDS = 0.5


class Later:
    """Actions that are due later."""

    def __init__(self) -> None:
        self._actions: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._actions, (time.monotonic() + seconds, next(self._order), action))

    @property
    def is_empty(self) -> bool:
        return not self._actions

    def run_due(self) -> None:
        while self._actions and self._actions[0][0] <= time.monotonic():
            heapq.heappop(self._actions)[2]()

    def run_all(self) -> None:
        """Run all actions, even those that are not due."""
        while self._actions:
            heapq.heappop(self._actions)[2]()


class Schedule:
    """A random order of faults, drawn from a bag of all kinds that is refilled when empty."""

    def __init__(
        self,
        kinds: Mapping[str, Fault],
        times: Mapping[str, int],
        draw: random.Random,
        pause: tuple[float, float],
    ) -> None:
        """Create a schedule.

        Args:
            kinds: all kinds of faults by name.
            times: how often a kind is in the bag, if not once.
            draw: the source of random numbers.
            pause: smallest and largest number of seconds between two faults.
        """
        self.kinds = kinds
        self.times = times
        self.draw = draw
        self.pause = pause
        self.counts = Counter(dict.fromkeys(kinds, 0))
        self._bag: list[str] = []
        self._next = 0.0

    def step(self) -> None:
        """Cause the next fault, if it is due."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (
                self.draw.uniform(*self.pause) if self._begin() else TRY_AGAIN_SECONDS
            )

    def _begin(self) -> bool:
        if not self._bag:
            self._bag = [kind for kind in self.kinds for _ in range(self.times.get(kind, 1))]
            self.draw.shuffle(self._bag)
        for kind in self._bag:
            if self.kinds[kind](kind):
                self._bag.remove(kind)
                self.counts[kind] += 1
                print(f"{time.strftime('%H:%M:%S')}  {kind}", flush=True)
                return True
        self._bag.clear()  # the faults that are left are impossible
        return False
