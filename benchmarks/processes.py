"""The memory of another process and of its children, read while it runs."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peaks:
    """The peak memory of a process and of the largest of its children, as far as was seen."""

    pid: int
    own: int = 0  # bytes
    child: int = 0  # bytes; 0: there was none

    def look(self) -> None:
        """Read the peaks so far; a process that has ended keeps what was read before."""
        self.own = max(self.own, peak_bytes(self.pid))
        self.child = max([self.child, *map(peak_bytes, children(self.pid))])


def peak_bytes(pid: int) -> int:
    """Return the peak of a process's memory in bytes; 0 if it has ended."""
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return 0


def children(pid: int) -> list[int]:
    """Return the processes that a process's threads have started and that run."""
    found: list[int] = []
    with suppress(OSError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, file.read_text().split())
    return found
