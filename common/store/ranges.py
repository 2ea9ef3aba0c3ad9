"""A file over an object in a bucket that fetches only the parts that are read."""

import io
from collections.abc import Callable
from typing import Any

#: Bytes fetched in one request. A shard's metadata and row numbers fit into one block.
BLOCK_BYTES = 64 * 1024


class RangedFile(io.RawIOBase):
    """A file that reads an object in blocks and keeps them: for small parts of a large object."""

    def __init__(self, size: int, head: bytes, fetch: Callable[[int, int], bytes]) -> None:
        """Wrap an object.

        Args:
            size: the object's size in bytes.
            head: the first block, or the whole object if that is smaller.
            fetch: returns the bytes from a start offset up to, not including, an end offset.
        """
        self._size = size
        self._blocks = {0: head}
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
            index, start = divmod(self._position, BLOCK_BYTES)
            part = self._block(index)[start : start + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled

    def _block(self, index: int) -> bytes:
        if index not in self._blocks:
            start = index * BLOCK_BYTES
            self._blocks[index] = self._fetch(start, min(start + BLOCK_BYTES, self._size))
        return self._blocks[index]
