"""A ZIP archive of which the large members are written at their place, several at once."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from common.crc import crc32
from producer.output.layouts.at_place import write_at


class PlacedZip:
    """Members without compression whose sizes are known, one after the other; then any others.

    ``zipfile`` can write but one member at a time, so that all others would have to be kept
    elsewhere until then, and be copied. And its CRC-32 takes several times longer than ours.
    """

    def __init__(self, file: BinaryIO, sizes: Mapping[str, int]) -> None:
        """Find the places of members.

        Args:
            file: an empty one.
            sizes: the bytes of each member, by its name.
        """
        self._file = file
        self._members: dict[str, zipfile.ZipInfo] = {}
        #: Where the next bytes of each member go.
        self._places: dict[str, int] = {}
        end = 0
        for name, size in sizes.items():
            info = zipfile.ZipInfo(name)
            info.file_size = info.compress_size = size
            info.header_offset, info.CRC = end, 0
            self._members[name] = info
            self._places[name] = end + len(info.FileHeader(zip64=True))
            end = self._places[name] + size
        self._end = end

    def append(self, name: str, data: bytes | memoryview) -> None:
        """Write the next bytes of a member.

        Raises:
            OSError: they cannot be written.
        """
        info, view = self._members[name], memoryview(data)
        info.CRC = crc32(view, info.CRC)
        self._places[name] = write_at(self._file.fileno(), view, self._places[name])

    @contextmanager
    def rest(self) -> Iterator[zipfile.ZipFile]:
        """Complete the members, and yield the archive for those that come after them.

        Raises:
            OSError: they cannot be written.
        """
        for info in self._members.values():
            header = info.FileHeader(zip64=True)
            write_at(self._file.fileno(), memoryview(header), info.header_offset)
        self._file.seek(self._end)
        # Its texts are long rows of zeros: the first level takes a fifth of the time of the usual.
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.filelist += self._members.values()
            archive.NameToInfo |= self._members
            yield archive
