"""A file over an object in a bucket that fetches only the parts that are read."""

import io
from collections.abc import Callable
from typing import Any

#: Bytes fetched in one request. A shard's trailer fits into one block.
BLOCK_BYTES = 64 * 1024


class RangedFile(io.RawIOBase):
    """A file that reads an object in blocks and keeps them: for small parts of a large object."""

    def __init__(self, size: int, tail: bytes, fetch: Callable[[int, int], bytes]) -> None:
        """Wrap an object.

        Args:
            size: the object's size in bytes.
            tail: its last bytes.
            fetch: returns the bytes from a start offset up to, not including, an end offset.
        """
        self._size = size
        self._tail = tail
        self._tail_start = size - len(tail)
        self._blocks: dict[int, bytes] = {}
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._position < self._size:
            part = self._known_from(self._position)[: len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled

    def _known_from(self, position: int) -> bytes:
        """Return some bytes of the object from a position on."""
        if position >= self._tail_start:
            return self._tail[position - self._tail_start :]
        index, start = divmod(position, BLOCK_BYTES)
        if index not in self._blocks:
            end = min((index + 1) * BLOCK_BYTES, self._tail_start)
            self._blocks[index] = self._fetch(index * BLOCK_BYTES, end)
        return self._blocks[index][start:]
