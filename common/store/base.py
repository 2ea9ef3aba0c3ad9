"""The interface of a store, and its errors."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

from common.errors import UnavailableError, UserError

#: The object that marks the root of a store: what has none may be a mount point without its file
#: system, or another bucket. No listing shows it.
MARKER = ".virnucpro-store"


class StoreError(UserError):
    """The store failed to do what was asked, after its own retries."""


class StoreUnavailableError(StoreError, UnavailableError):
    """The store's server cannot be reached, or cannot serve for a while."""


class ObjectNotFoundError(StoreError):
    """There is no object under this key."""


class NoStoreError(StoreError):
    """There is no store here, perhaps not yet: ``producer init`` or a submit makes it."""


class ObjectExistsError(StoreError):
    """There already is an object under this key, perhaps the caller's own: see ``Store.create``."""


class Store(Protocol):
    """The operations that the fleet needs of a folder or a bucket. Keys are ``/``-separated."""

    url: str
    #: Number of writes worth having under way at once: few for a disk, many for a remote bucket.
    parallel_writes: int
    #: Number of small reads worth having under way at once.
    parallel_reads: int

    def check_writable(self) -> None:
        """Make this a store, unless it is one, and find out early that it cannot be written.

        Raises:
            StoreError: it cannot, with the answer of the server or the file system.
        """

    def check_exists(self) -> None:
        """Check that there is a store here, so that what is missing in it is missing indeed.

        A folder checks it by itself before it answers, a bucket if a listing is empty.

        Raises:
            StoreError: there is none, perhaps not yet.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, which is durable after the next ``sync``."""

    def sync(self) -> None:
        """Return once everything written by ``put`` would survive a power cut."""

    def get(self, key: str) -> bytes:
        """Read an object into memory."""

    def create(self, key: str, *, replace: bool = True) -> AbstractContextManager[Path]:
        """Yield a path to write to. A clean exit makes it the object; an error deletes it.

        Args:
            replace: whether to replace an object that already exists. Where a store cannot tell
                (a file system without hard links, a server without conditional writes), it is
                always replaced.

        Raises:
            ObjectExistsError: ``replace`` is false and there is an object already. It may be the
                one just written: the client repeats a write whose answer was lost.
        """

    def open(self, key: str) -> AbstractContextManager[Path]:
        """Yield a path to read the object from."""

    def open_ranges(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Yield a file that fetches only the parts that are read, and the last block at once."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys under ``prefix``, in order."""

    def sizes(self, prefix: str) -> Iterator[int]:
        """Yield the bytes of each object under ``prefix``, as a listing tells them."""

    def folders(self) -> Iterator[str]:
        """Yield the names directly under the root that have objects under them, in order.

        They are the jobs and ``validations``.
        """

    def delete(self, prefix: str, check: Callable[[], None] = lambda: None) -> None:
        """Delete every object under ``prefix``, which must not be empty.

        Args:
            check: called right before each deletion; raises if nothing may be deleted any more.
        """

    def delete_keys(self, keys: Iterable[str], check: Callable[[], None] = lambda: None) -> None:
        """Delete the objects under these keys, as many at once as the store can.

        Args:
            check: called right before each deletion; raises if nothing may be deleted any more.
        """


def check_key(store_url: str, key: str) -> None:
    """Raise StoreError for a key or prefix that is empty, absolute, or leads out of the store."""
    parts = key.removesuffix("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise StoreError(f"Store {store_url}: {key!r} is not a key of a store.")


def no_store(url: str, question: str) -> NoStoreError:
    """Return the error of a place that is not a store."""
    return NoStoreError(
        f"{url} is not a store. {question} If it is new: producer init, or the first submit to it, "
        "makes it one."
    )
