"""The file beside an output that is being written, and those that killed processes left there."""

import fcntl
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

#: Seconds since the last write after which a file that no process has locked is abandoned. Before
#: the lock is taken, and between its end and the new name, are milliseconds.
UNLOCKED_SECONDS = 10.0

#: The same where a file system or HDF5_USE_FILE_LOCKING gives no locks: nothing takes longer.
WITHOUT_LOCKS_SECONDS = 24 * 3600.0


def partial_of(output: Path) -> Path:
    """Return a new name for an output that is being written."""
    return output.with_name(f".{output.name}.{uuid.uuid4().hex}")


def lock(file: IO[bytes]) -> None:
    """Lock a file that is being written, until it is closed, where its file system has locks."""
    if not without_locks():
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def without_locks() -> bool:
    """Return whether the user says that locks do not work here: asking for one may never return."""
    return os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0")


def remove_abandoned(output: Path, own: Path) -> None:
    """Delete what killed processes left beside an output, and nothing that is being written.

    Args:
        own: the file that this process has just created there, which tells the time of the file
            system. Its clock may differ from this machine's.
    """
    name = re.compile(rf"\.{re.escape(output.name)}\.[0-9a-f]{{32}}")
    with suppress(OSError):  # what cannot be deleted stays
        now = own.stat().st_mtime
        for path in output.parent.iterdir():
            if path != own and name.fullmatch(path.name):
                with suppress(OSError):
                    age = now - path.stat().st_mtime
                    # A new one is not even locked, so that its process can lock it.
                    if age > UNLOCKED_SECONDS and age > quiet_seconds(path):
                        path.unlink()


def quiet_seconds(path: Path) -> float:
    """Return the seconds without a write after which nothing writes a file.

    Raises:
        BlockingIOError: a process has it locked.
    """
    if without_locks():
        return WITHOUT_LOCKS_SECONDS
    with path.open("r+b") as file:  # over NFS, a lock needs the right to write
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return WITHOUT_LOCKS_SECONDS
    return UNLOCKED_SECONDS
