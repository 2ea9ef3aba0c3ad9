"""What a store is, and how it fails."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from common.errors import UserError


class StoreError(UserError):
    """The store did not do what was asked, after its own retries."""


class ObjectNotFoundError(StoreError):
    """There is no object under this key."""


class ObjectExistsError(StoreError):
    """There is an object under this key already, perhaps our own: see ``Store.create``."""


class Store(Protocol):
    """What the fleet needs of a folder or a bucket. Keys are ``/``-separated paths."""

    url: str
    #: Writes worth having under way at once: a disk needs few, a bucket far away many.
    parallel_writes: int
    #: The same of small reads.
    parallel_reads: int

    def put(self, key: str, data: bytes) -> None:
        """Write a small object; ``sync`` makes it last."""

    def sync(self) -> None:
        """Return when all that was put would survive a power cut."""

    def get(self, key: str) -> bytes:
        """Read an object into memory."""

    def create(self, key: str, *, replace: bool = True) -> AbstractContextManager[Path]:
        """A path to write; on a clean exit it becomes the object, on an error it is gone.

        Args:
            replace: whether it takes the place of an object that is there. Where a store cannot
                tell (a file system without hard links, a server without conditional writes), it
                always does.

        Raises:
            ObjectExistsError: there is an object that was not to be replaced. It may be this one:
                a write whose answer was lost is repeated underneath.
        """

    def open(self, key: str) -> AbstractContextManager[Path]:
        """A path to read the object from."""

    def open_ranges(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A file to read parts of the object from, without the rest; the beginning is at hand."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys under ``prefix``, in order."""

    def folders(self) -> Iterator[str]:
        """Names directly under the root that have objects under them, in order: the jobs', and
        ``validations``.
        """

    def delete(self, prefix: str) -> None:
        """Delete every object under ``prefix``."""
