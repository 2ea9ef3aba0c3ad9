"""The clock of Redis, which a test sets by libfaketime.

Python's own processes cannot run on it: ``time.sleep`` fails there with libfaketime 0.9.10.
"""

import os
from dataclasses import dataclass
from pathlib import Path

#: The places of Debian's and Fedora's libfaketime; another is named in ``LIBFAKETIME``.
LIBRARIES = ("usr/lib/*/faketime/libfaketimeMT.so.1", "usr/lib64/faketime/libfaketimeMT.so.1")

#: Seconds until a process sees that its clock was set.
SEEN_SECONDS = 1


def find_libfaketime() -> Path | None:
    """Return the installed libfaketime, if there is one."""
    named = os.environ.get("LIBFAKETIME")
    found = [Path(named)] if named else [p for name in LIBRARIES for p in Path("/").glob(name)]
    return next((path for path in found if path.is_file()), None)


@dataclass(frozen=True)
class Clock:
    """The clock of a process that has its ``environment``: right, but for what is set."""

    library: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with the clock."""
        return {
            **os.environ,
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


def make_clock(file: Path) -> Clock | None:
    """Return a clock that is right; None without libfaketime."""
    library = find_libfaketime()
    if library is None:
        return None
    clock = Clock(library, file)
    clock.set(0)
    return clock
