"""The speed of a job, from how many tokens were done when."""

from collections import deque

#: The speed shown is that of the last so many seconds.
WINDOW_SECONDS = 30.0


class Speed:
    """Tokens per second over a sliding window."""

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, now: float, tokens: int) -> float | None:
        """Note the tokens done by ``now``; the speed, or None if it cannot be told yet."""
        self._seen.append((now, tokens))
        while len(self._seen) > 2 and self._seen[0][0] < now - self._window:
            self._seen.popleft()
        (then, before) = self._seen[0]
        return (tokens - before) / (now - then) if tokens > before and now > then else None
