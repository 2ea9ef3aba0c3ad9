"""The liveness of a worker process: it touches a heartbeat file, which its supervisor checks.

The watchdog inside a process needs Python to run. A process that is frozen as a whole, or in which
one call blocks all threads, no longer touches its file.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

#: Seconds between two checks of the file.
CHECK_SECONDS = 0.2

#: Seconds without a heartbeat after which a process no longer counts as live, and after which it
#: counts as frozen. Heartbeats come every 10 s; every 35 s at worst, if Redis takes almost as long
#: as it may for each answer.
LATE_SECONDS, FROZEN_SECONDS = 45.0, 90.0

#: Seconds until the first heartbeat. A process imports PyTorch before, perhaps from a slow disk.
FIRST_HEARTBEAT_SECONDS = 600.0


@dataclass
class Liveness:
    """The liveness of one process.

    Time is counted in checks: a machine that was suspended, or a clock that was set, says nothing
    about the process.
    """

    file: Path
    _last: int | None = None
    _checks_since: int = 0

    def reset(self) -> None:
        """Expect the first heartbeat of a new process."""
        self.file.unlink(missing_ok=True)
        self._last, self._checks_since = None, 0

    def check(self) -> None:
        """Check the file for a heartbeat; to be called every ``CHECK_SECONDS``."""
        heartbeat = self.file.stat().st_mtime_ns if self.file.exists() else None
        self._checks_since = 0 if heartbeat != self._last else self._checks_since + 1
        self._last = heartbeat

    @property
    def is_live(self) -> bool:
        """Whether the last heartbeat, or the start, is recent."""
        return not self._is_silent(LATE_SECONDS)

    @property
    def is_frozen(self) -> bool:
        """Whether the last heartbeat is so long ago that the process should be killed."""
        return self._is_silent(FROZEN_SECONDS)

    def _is_silent(self, seconds: float) -> bool:
        if self._last is None:
            seconds = FIRST_HEARTBEAT_SECONDS
        return self._checks_since * CHECK_SECONDS >= seconds


def touch(file: Path) -> None:
    """Create a file, or set its time to now; an OSError if it is anything else."""
    # Whoever may write to its folder could have put a link there.
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):  # such as a pipe that somebody reads
            raise OSError(errno.EINVAL, "Not a file", str(file))
        os.utime(opened)
    finally:
        os.close(opened)
