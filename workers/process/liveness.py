"""The pulse of a process: a file that it touches, and that its supervisor looks at.

The watchdog inside a process needs Python to run; a process that is frozen as a whole, or in which
one call keeps all threads from running, has no pulse.
"""

from dataclasses import dataclass
from pathlib import Path

#: Environment variable with the path of the file that a process touches every few seconds.
BEAT_FILE = "VIRNUCPRO_BEAT_FILE"

#: Seconds between two looks.
LOOK_SECONDS = 0.2

#: Seconds without a beat after which a process is not well, and after which it is given up. Beats
#: come every 10 s, or every 35 s at worst, if Redis takes just less than its time for all answers.
UNWELL_SECONDS, SILENT_SECONDS = 45.0, 90.0

#: Seconds until the first beat: it imports PyTorch before, from a disk that may be cold.
FIRST_BEAT_SECONDS = 600.0


@dataclass
class Liveness:
    """What was heard of a process. Counted in looks: time in which nobody looked, as the machine
    was suspended, and clocks that were set say nothing about it.
    """

    file: Path
    _last: int | None = None
    _silent_looks: int = 0

    def reset(self) -> None:
        """Wait for the first beat of a process that is started now."""
        self.file.unlink(missing_ok=True)
        self._last, self._silent_looks = None, 0

    def look(self) -> None:
        """Look whether there was a beat; to be called every ``LOOK_SECONDS``."""
        beat = self.file.stat().st_mtime_ns if self.file.exists() else None
        self._silent_looks = 0 if beat != self._last else self._silent_looks + 1
        self._last = beat

    @property
    def is_well(self) -> bool:
        """Whether the last beat, or the start, is not long ago."""
        return not self._silent_for(UNWELL_SECONDS)

    @property
    def has_stopped(self) -> bool:
        """Whether there will be no more beats."""
        return self._silent_for(SILENT_SECONDS)

    def _silent_for(self, seconds: float) -> bool:
        if self._last is None:
            seconds = FIRST_BEAT_SECONDS
        return self._silent_looks * LOOK_SECONDS >= seconds
