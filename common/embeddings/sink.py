"""The file under an HDF5 file that is being written."""

import io
import os
from typing import Any

from common.embeddings.arrays import Array

#: The most bytes of one write: some systems refuse 2 GiB.
LARGEST_WRITE = 1 << 30


class Sink(io.FileIO):
    """A file that keeps its first write error in ``error`` instead of raising it.

    HDF5 ends the process if a write fails while it flushes (seen with HDF5 2 on a full tmpfs), so
    it must not learn of a full disk before it has closed the file.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view and not self.error:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Read; bytes beyond the end of the file are zeros.

        HDF5 would read leftover memory there as addresses in the file, and may end the process.
        """
        view = memoryview(buffer).cast("B")
        found = super().readinto(view)
        view[found:] = bytes(len(view) - found)
        return len(view)

    def write_at(self, offset: int, values: Array) -> None:
        """Write a contiguous array at a byte offset, without Python's global lock."""
        view = values.data.cast("B")
        while view:
            written = os.pwrite(self.fileno(), view[:LARGEST_WRITE], offset)
            view, offset = view[written:], offset + written

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = error
            return size or 0

    def flush(self) -> None:
        """Do nothing: the file is not buffered."""
