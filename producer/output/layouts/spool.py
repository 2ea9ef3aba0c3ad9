"""Texts that are kept in temporary files until the longest of them is known."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

#: Bytes and texts that are padded at once, at most.
CHUNK_BYTES, CHUNK_TEXTS = 2**24, 50_000


class Spool:
    """Columns of texts in temporary files, which have no name and end with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        #: The most letters of a text, by its column.
        self.longest: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def append(self, name: str, texts: list[str]) -> None:
        """Append texts, none with a line feed, to a column."""
        if texts:
            self.longest[name] = max(self.longest.get(name, 1), max(map(len, texts)))
            self._file(name).write(("\n".join(texts) + "\n").encode())

    def padded(self, name: str) -> Iterator[bytes]:
        """Yield the texts of a column as NumPy keeps them, all as long as the longest."""
        file = self._file(name)
        file.seek(0)
        dtype = np.dtype(f"<U{self.longest.get(name, 1)}")
        most = max(1, min(CHUNK_TEXTS, CHUNK_BYTES // dtype.itemsize))
        while lines := list(islice(file, most)):
            texts = b"".join(lines).decode().split("\n")[:-1]
            yield np.array(texts, dtype).tobytes()

    def bytes_of(self, name: str) -> int:
        """Return the number of bytes of a column."""
        return self._file(name).seek(0, 2)

    def _file(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = TemporaryFile(dir=self._folder)  # noqa: SIM115  # closed at the end
        return self._files[name]
