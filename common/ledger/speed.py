"""The speed of a job in tokens per second."""

from collections import deque

#: Seconds over which a speed is averaged.
WINDOW_SECONDS = 30.0


class Speed:
    """Tokens per second over a sliding window."""

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, now: float, tokens: int) -> float | None:
        """Add a reading and return the speed; None before it can be told.

        Args:
            now: seconds on a monotonic clock.
            tokens: tokens done by then, in total.
        """
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and self._seen[0][0] < now - self._window:
            self._seen.popleft()
        (then, before) = self._seen[0]
        return (tokens - before) / (now - then) if tokens > before and now > then else None
