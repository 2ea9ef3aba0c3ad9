"""The file beside an output that is being written, and those that killed processes left there."""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from common.embeddings.sink import Sink
from common.errors import UserError

#: Seconds since the last write after which a file that no process has locked is abandoned. Before
#: the lock is taken, and between its end and the new name, are milliseconds.
UNLOCKED_SECONDS = 10.0

#: The same where a file system or HDF5_USE_FILE_LOCKING gives no locks: nothing takes longer.
WITHOUT_LOCKS_SECONDS = 24 * 3600.0


def partial_of(output: Path) -> Path:
    """Return a new name for an output that is being written."""
    return output.with_name(f".{output.name}.{uuid.uuid4().hex}")


@contextmanager
def written(place: Path) -> Iterator[Path]:
    """Yield a name for the time being, which becomes the file's at the end of the block.

    Raises:
        UserError: the file cannot be written.
    """
    partial = partial_of(place)
    try:
        yield partial
        partial.replace(place)
    except OSError as error:
        raise UserError(f"{place} cannot be written: {error.strerror}.", path=place) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file and lock it while it is written."""
    with path.open("w+b") as file:
        lock(file)
        yield file


@contextmanager
def locked_sink(path: Path) -> Iterator[Sink]:
    """Create a file for HDF5, and lock it while it is written.

    Raises:
        OSError: what HDF5 was not told, at the end of the block.
    """
    with Sink(path, "w+b") as sink:
        lock(sink)
        yield sink
        if sink.error:
            raise sink.error


@contextmanager
def locked_folder(path: Path) -> Iterator[Path]:
    """Create a folder and lock it while files are written in it."""
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(descriptor)
        yield path
    finally:
        os.close(descriptor)


def lock(file: IO[bytes] | int) -> None:
    """Lock what is being written, until it is closed, where its file system has locks."""
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
    # A layout of two files adds a suffix to the name of the second.
    name = re.compile(rf"\.{re.escape(output.name)}\.[0-9a-f]{{32}}(\.[a-z]+)?")
    with suppress(OSError):  # what cannot be deleted stays
        now = own.stat().st_mtime
        for path in output.parent.iterdir():
            if not path.name.startswith(own.name) and name.fullmatch(path.name):
                with suppress(OSError):
                    age = now - path.stat().st_mtime
                    # A new one is not even locked, so that its process can lock it.
                    if age > UNLOCKED_SECONDS and age > quiet_seconds(path):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()


def quiet_seconds(path: Path) -> float:
    """Return the seconds without a write after which nothing writes a file.

    Raises:
        BlockingIOError: a process has it locked.
    """
    if without_locks():
        return WITHOUT_LOCKS_SECONDS
    # Over NFS, the lock of a file needs the right to write.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return WITHOUT_LOCKS_SECONDS
    finally:
        os.close(descriptor)
    return UNLOCKED_SECONDS
