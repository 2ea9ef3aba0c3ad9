"""A store in a folder that all machines of a fleet share."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from common.store.base import (
    MARKER,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreError,
    check_key,
    no_store,
)

#: Error numbers of a file system that has no hard links.
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


#: The beginning of the names of folders that are being deleted, at the root.
DELETED = ".deleted."


class FileStore:
    """A folder. Each object is written to a temporary file beside its place, then renamed.

    A folder without the marker of a store, which may be a mount point whose file system is not
    mounted, is never read, written or listed: that is an error.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._marker = root / MARKER
        self.parallel_writes = 1
        self.parallel_reads = 1
        self.url = f"file://{root}"

    def _path(self, key: str) -> Path:
        check_key(self.url, key)
        path = self.root / key
        # An object may be a link only to another place in the store. To look for links is faster
        # than to resolve them.
        if self._has_link(key) and not self._leads_inside(path):
            raise StoreError(f"Store {self.url}: {key} is a link that leads out of the store.")
        return path

    def _has_link(self, key: str) -> bool:
        """Return whether a link is on the way from the root to a key."""
        place = str(self.root)
        for part in key.removesuffix("/").split("/"):
            place = f"{place}/{part}"
            if os.path.islink(place):  # noqa: PTH114 (Path.is_symlink raises if a disk fails)
                return True
        return False

    def _leads_inside(self, path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root))

    def check_writable(self) -> None:
        with self._errors("write to it"):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
            self._marker.touch()

    def check_exists(self) -> None:
        with self._errors("find it"):
            self._check_marker()

    def _check_marker(self) -> None:
        try:
            self._marker.stat()
        except FileNotFoundError:
            self._adopt()

    def _adopt(self) -> None:
        """Mark a store that an earlier version made."""
        if not any(chain(self.root.glob("*/manifest.json"), self.root.glob("validations/*.json"))):
            raise no_store(self.url, "Is it mounted?")
        with suppress(OSError):  # it may be for reading only
            self._marker.touch()

    def put(self, key: str, data: bytes) -> None:
        with self._temporary_file(key) as path:
            with path.open("wb") as file:
                file.write(data)
                begin_to_sync(file)
            path.replace(self.root / key)

    def sync(self) -> None:
        # Once for all objects: a job's input has thousands of small ones.
        os.sync()

    def get(self, key: str) -> bytes:
        with self.open(key) as path, self._errors(f"read {key}"):
            return path.read_bytes()

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        with self._temporary_file(key) as path:
            yield path
            sync_file(path)
            if replace:
                path.replace(self._path(key))
            else:
                self._move_unless_exists(path, key)

    def _move_unless_exists(self, path: Path, key: str) -> None:
        target = self._path(key)
        try:
            # Unlike a rename, a hard link never replaces an existing file.
            target.hardlink_to(path)
        except FileExistsError as error:
            raise ObjectExistsError(f"Store {self.url} has {key} already.") from error
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            path.replace(target)
        else:
            path.unlink()

    @contextmanager
    def _temporary_file(self, key: str) -> Iterator[Path]:
        """Yield a path in the key's folder, for a file that is then moved; an error deletes it."""
        target = self._path(key)
        path = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with self._errors(f"write {key}"):
            self._check_marker()
            self._make_folder(target.parent)
            try:
                yield path
                self._check_marker()  # or the object is where the store was
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    def _make_folder(self, folder: Path) -> None:
        """Make a folder below the root; the root itself is there, or the store is not."""
        if folder != self.root and not folder.is_dir():
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with self._errors(f"read {key}"):
            self._check_marker()
            exists = path.is_file()
        if not exists:
            self._check_marker()  # still
            raise ObjectNotFoundError(f"Store {self.url} has no {key}.")
        yield path

    @contextmanager
    def open_ranges(self, key: str) -> Iterator[BinaryIO]:
        with self.open(key) as path:
            with self._errors(f"read {key}"):
                file = path.open("rb")
            with file:
                yield file

    def keys(self, prefix: str) -> Iterator[str]:
        # A prefix is a folder or one object: the layout needs no other.
        start = self._path(prefix) if prefix else self.root
        with self._errors(f"list {prefix}"):
            self._check_marker()
            found = [start] if start.is_file() else sorted(self._files(start))
            self._check_marker()  # still, or files may be missing in the list
        for path in found:
            yield path.relative_to(self.root).as_posix()

    def sizes(self, prefix: str) -> Iterator[int]:
        for key in self.keys(prefix):
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                yield (self.root / key).stat().st_size

    def _files(self, folder: Path) -> Iterator[Path]:
        """Yield the files under a folder that are objects."""
        try:
            with os.scandir(folder) as listed:
                entries = list(listed)
        except FileNotFoundError:
            self._check_marker()  # then the folder alone was deleted meanwhile
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._files(folder / entry.name)
            elif entry.is_file(follow_symlinks=False):
                yield folder / entry.name

    def folders(self) -> Iterator[str]:
        with self._errors("list its folders"):
            self._check_marker()
            with os.scandir(self.root) as entries:
                found = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
            self._check_marker()  # still, or folders may be missing in the list
        yield from (name for name in found if not name.startswith("."))

    def delete(self, prefix: str, check: Callable[[], None] = lambda: None) -> None:
        start = self._path(prefix)
        with self._errors(f"delete {prefix}"):
            self._check_marker()
            check()
            if start.is_dir():
                # Away at once: a process that stops for an hour in the middle deletes nothing that
                # was written under the old name meanwhile.
                away = self.root / f"{DELETED}{uuid.uuid4().hex}"
                start.rename(away)
                shutil.rmtree(away, onerror=raise_unless_missing)
                remove_empty(start.parent, self.root)
                for leftover in self.root.glob(f"{DELETED}*"):  # of processes that were killed
                    shutil.rmtree(leftover, ignore_errors=True)
            else:
                start.unlink(missing_ok=True)
            self._check_marker()  # still, or nothing was deleted

    def delete_keys(self, keys: Iterable[str], check: Callable[[], None] = lambda: None) -> None:
        for key in keys:
            path = self._path(key)
            with self._errors(f"delete {key}"):
                self._check_marker()
                check()
                path.unlink(missing_ok=True)
                remove_empty(path.parent, self.root)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"Store {self.url}: cannot {doing}: {error}.") from error


def raise_unless_missing(
    _function: object, _path: str, error: tuple[type[BaseException], BaseException, object]
) -> None:
    """Raise an error of ``shutil.rmtree``, unless another process deletes the same."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it, below ``root``, that are empty; a bucket has none."""
    with suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def begin_to_sync(file: BinaryIO) -> None:
    """Have the disk begin with what was written to a file, without waiting for it.

    Otherwise it may have nothing to do before ``sync``, which then waits for all objects.
    """
    file.flush()
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # it is only advice
            # What is not on the disk stays in memory, but is written there.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync_file(path: Path) -> None:
    """Write a file's data to disk, before a rename makes it count as complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
