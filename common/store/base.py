"""What a store is, and how it fails."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from common.errors import UserError


class StoreError(UserError):
    """The store did not do what was asked, after its own retries."""


class ObjectNotFoundError(StoreError):
    """There is no object under this key."""


class Store(Protocol):
    """What the fleet needs of a folder or a bucket. Keys are ``/``-separated paths."""

    url: str
    #: Writes worth having under way at once: a disk needs few, a bucket far away many.
    parallel_writes: int

    def put(self, key: str, data: bytes) -> None:
        """Write a small object; ``sync`` makes it last."""

    def sync(self) -> None:
        """Return when all that was put would survive a power cut."""

    def get(self, key: str) -> bytes:
        """Read an object into memory."""

    def create(self, key: str) -> AbstractContextManager[Path]:
        """A path to write; on a clean exit it becomes the object, on an error it is gone."""

    def open(self, key: str) -> AbstractContextManager[Path]:
        """A path to read the object from."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""

    def delete(self, prefix: str) -> None:
        """Delete every object under ``prefix``."""
