"""The losses of devices in a worker, after which it ends to be replaced."""

from collections import deque

#: Number of losses of devices within ``LOSS_SECONDS`` that end a supervisor. A GPU that is lost
#: again and again needs its pod, unit or host replaced.
MAX_LOSSES, LOSS_SECONDS = 3, 1800.0


class DeviceLosses:
    """The times of the latest losses."""

    def __init__(self, most: int = MAX_LOSSES) -> None:
        self.most = most
        self._times: deque[float] = deque(maxlen=most)

    def add(self, now: float) -> None:
        """Add a loss."""
        self._times.append(now)

    def are_too_many(self, now: float) -> bool:
        """Return whether there were as many as allowed within ``LOSS_SECONDS``."""
        full = len(self._times) == self.most
        return full and now - self._times[0] <= LOSS_SECONDS
