"""The clock of Redis, which a soak test sets by libfaketime.

Python's own processes cannot run on it: ``time.sleep`` fails there with libfaketime 0.9.10.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: The places of Debian's and Fedora's libfaketime.
LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib64/faketime/libfaketimeMT.so.1")

#: Seconds until a process sees that its clock was set.
SEEN_SECONDS = 1


def find_libfaketime() -> Path | None:
    """Return the installed libfaketime, if there is one."""
    root = Path("/")
    return next((path for name in LIBRARIES for path in root.glob(name[1:])), None)


@dataclass(frozen=True)
class Clock:
    """The clock of a process that has its ``environment``: right, but for what is set."""

    library: Path
    file: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": str(SEEN_SECONDS),
            # Only the time of day is set, as by an operator or NTP.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Set the clock ahead by a number of seconds; back, if it is negative."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.file)


def make_clock(library: Path | None, file: Path) -> Clock | None:
    """Return a clock that is right; None without libfaketime."""
    if library is None:
        return None
    clock = Clock(library, file)
    clock.set(0)
    return clock
