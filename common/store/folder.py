"""A store in a folder that all machines of a fleet share."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from common.store.base import ObjectExistsError, ObjectNotFoundError, StoreError, check_key

#: Error numbers of a file system that has no hard links.
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


class FileStore:
    """A folder. Each object is written to a temporary file beside its place, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parallel_writes = 1
        self.parallel_reads = 1
        self.url = f"file://{root}"

    def _path(self, key: str) -> Path:
        check_key(self.url, key)
        path = self.root / key
        # An object may be a link only to another place in the store.
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            raise StoreError(f"Store {self.url}: {key} is a link that leads out of the store.")
        return path

    def check_writable(self) -> None:
        with self._errors("write to it"):
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass

    def put(self, key: str, data: bytes) -> None:
        with self._temporary_file(key) as path:
            path.write_bytes(data)
            path.replace(self._path(key))

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
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield path
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    @contextmanager
    def open(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with self._errors(f"read {key}"):
            exists = path.is_file()
        if not exists:
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
        if start.is_file():
            yield prefix
        for path in sorted(start.rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                yield path.relative_to(self.root).as_posix()

    def folders(self) -> Iterator[str]:
        with self._errors("list its folders"):
            entries = sorted(self.root.iterdir()) if self.root.is_dir() else []
        yield from (path.name for path in entries if path.is_dir() and path.name[0] != ".")

    def delete(self, prefix: str) -> None:
        start = self._path(prefix)
        with self._errors(f"delete {prefix}"):
            if start.is_dir():
                shutil.rmtree(start)
            else:
                start.unlink(missing_ok=True)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"Store {self.url}: cannot {doing}: {error}.") from error


def sync_file(path: Path) -> None:
    """Write a file's data to disk, before a rename makes it count as complete."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
