"""When what happens: faults after drawn pauses, kind after kind, and the end of each."""

import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

#: Brings a fault about, if it can be at this moment; is told the fault's name.
Fault = Callable[[str], bool]

#: After a moment at which no fault could be.
TRY_AGAIN_SECONDS = 0.5


class Later:
    """Actions for which it is not time yet."""

    def __init__(self) -> None:
        self._actions: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._actions, (time.monotonic() + seconds, next(self._order), action))

    def run_due(self) -> None:
        while self._actions and self._actions[0][0] <= time.monotonic():
            heapq.heappop(self._actions)[2]()

    def run_all(self) -> None:
        """Whether it is time or not."""
        while self._actions:
            heapq.heappop(self._actions)[2]()


class Schedule:
    """Draws faults from a bag of all kinds, which is filled again when it is empty."""

    def __init__(
        self,
        kinds: Mapping[str, Fault],
        times: Mapping[str, int],
        draw: random.Random,
        pause: tuple[float, float],
    ) -> None:
        """Get ready to draw.

        Args:
            times: how often a kind is in the bag, if not once.
            draw: where chance comes from.
            pause: seconds between two faults, from and to.
        """
        self.kinds = kinds
        self.times = times
        self.draw = draw
        self.pause = pause
        self.counts = Counter(dict.fromkeys(kinds, 0))
        self._bag: list[str] = []
        self._next = 0.0

    def step(self) -> None:
        """Bring about the next fault, if it is time."""
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
        self._bag.clear()  # what is left cannot be, or not any more
        return False
