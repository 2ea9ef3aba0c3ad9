"""The liveness of a worker process, which its supervisor reads from its heartbeat file.

The watchdog inside a process needs Python to run. A process that is frozen as a whole, or in which
one call blocks all threads, no longer writes its file. One that is not alive for another reason
says so in it.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from workers.process.beat import Beat, read_beat

#: Seconds between two checks of the file.
CHECK_SECONDS = 0.2

#: Seconds without a heartbeat after which a process no longer counts as ready, as alive, and after
#: which it counts as frozen. Heartbeats come every second.
MISSED_SECONDS, LATE_SECONDS, FROZEN_SECONDS = 10.0, 45.0, 90.0

#: Seconds for which a process may say that it is not alive before it is replaced.
DEAF_SECONDS = 30.0

#: Seconds until the first heartbeat. A process imports PyTorch before, perhaps from a slow disk.
FIRST_HEARTBEAT_SECONDS = 600.0


@dataclass
class Liveness:
    """The liveness of one process.

    Time is counted in checks: a machine that was suspended, or a clock that was set, says nothing
    about the process.
    """

    file: Path
    beat: Beat | None = None  # the last one
    _last: int | None = None
    _checks_since: int = 0
    _checks_not_alive: int = 0
    _checks_consuming: int = 0

    def reset(self) -> None:
        """Expect the first heartbeat of a new process."""
        self.file.unlink(missing_ok=True)
        self.beat = self._last = None
        self._checks_since = self._checks_not_alive = self._checks_consuming = 0

    def check(self) -> None:
        """Check the file for a heartbeat; to be called every ``CHECK_SECONDS``."""
        if not self.file.parent.is_dir():
            return  # somebody removed the folder: no process can write to it, and none is to blame
        heartbeat = self.file.stat().st_mtime_ns if self.file.exists() else None
        if heartbeat != self._last:
            self._checks_since, self.beat = 0, read_beat(self.file) or self.beat
        else:
            self._checks_since += 1
        self._last = heartbeat
        not_alive = self.beat is not None and not self.beat.alive
        self._checks_not_alive = self._checks_not_alive + 1 if not_alive else 0
        self._checks_consuming = self._checks_consuming + 1 if self.consumes else 0

    @property
    def problem(self) -> str | None:
        """Return why the process is not alive; None if it is, or has just been started."""
        if self._is_silent(LATE_SECONDS):
            return self._silence
        return None if self.beat is None or self.beat.alive else self.beat.reason

    @property
    def stage(self) -> str:
        """Return what the process does, as it last said."""
        if self._is_silent(MISSED_SECONDS):
            return self._silence
        return "starting" if self.beat is None else self.beat.reason

    @property
    def consumes(self) -> bool:
        """Whether the process consumes, as it last said."""
        return self.beat is not None and self.beat.consumes and not self._is_silent(MISSED_SECONDS)

    @property
    def consuming_seconds(self) -> float:
        """Return for how long the process has consumed without a break."""
        return self._checks_consuming * CHECK_SECONDS

    @property
    def is_frozen(self) -> bool:
        """Whether the last heartbeat is so long ago that the process should be killed."""
        return self._is_silent(FROZEN_SECONDS)

    @property
    def is_deaf(self) -> bool:
        """Whether the process has said for long that it is not alive, and should be killed."""
        return self._checks_not_alive * CHECK_SECONDS >= DEAF_SECONDS

    @property
    def _silence(self) -> str:
        return f"no heartbeat for {self._checks_since * CHECK_SECONDS:.0f} s"

    def _is_silent(self, seconds: float) -> bool:
        if self._last is None:
            seconds = max(seconds, FIRST_HEARTBEAT_SECONDS)
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
