"""Ranges of a file of bgzip, which can be unpacked each by itself.

bgzip packs each 64 KB as a member of gzip of its own, whose header has its size in the field BC.
Source: the specification of SAM, 4.1 "The BGZF compression format".
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from xopen import xopen

from producer.input.blocks import READ_BYTES

#: A member's header, up to the size of the member less 1: magic number and flags, time and system,
#: the length of the only field, its name and length.
HEADER = struct.Struct("<4s6sH4sH")
BEGIN, NAME = b"\x1f\x8b\x08\x04", b"BC\x02\x00"

#: The end of a member: the size of what it unpacks to.
UNPACKED = struct.Struct("<I")

#: The ends of lines before a record.
BEFORE_RECORD = (b"\n>", b"\r>")


class PackedRange(NamedTuple):
    """Members of a file of bgzip: the records whose line before begins in them.

    The first range has what is before the first record, too.
    """

    name: str  # of the file in messages
    path: str
    inode: int  # of the file
    start: int  # in the file
    size: int | None  # bytes, unpacked; None: all to the end
    is_first: bool

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.size is None


def packed_ranges(name: str, path: str, piece_bytes: int) -> Iterator[PackedRange]:
    """Yield the ranges of a file; none if it is not of bgzip.

    Members of gzip that others have appended to it are all in the last range.

    Args:
        name: of the file in messages.
        path: of the file.
        piece_bytes: of a range, unpacked, about.
    """
    with Path(path).open("rb", buffering=0) as file:
        inode = os.fstat(file.fileno()).st_ino
        start = place = size = 0
        length = member_bytes(file.read(HEADER.size))
        if not length:
            return
        while length:
            place += length
            file.seek(place - UNPACKED.size)
            found = file.read(UNPACKED.size + HEADER.size)
            length = member_bytes(found[UNPACKED.size :])
            if not length:
                break
            size += UNPACKED.unpack_from(found)[0]
            if size >= piece_bytes:
                yield PackedRange(name, path, inode, start, size, start == 0)
                start, size = place, 0
    yield PackedRange(name, path, inode, start, None, start == 0)


def member_bytes(header: bytes) -> int:
    """Return the size of the member with a header; 0 if it is not of bgzip."""
    if len(header) < HEADER.size:
        return 0
    begin, _, length, name, size = HEADER.unpack(header)
    return int(size) + 1 if (begin, length, name) == (BEGIN, 6, NAME) else 0


def text_of(found: PackedRange) -> bytes:
    """Return the records of a range, and the ``>`` of the next one.

    Raises:
        OSError: the file cannot be read.
        Exception: it is damaged.
    """
    with Path(found.path).open("rb") as file:
        check_same(file, found.inode)
        file.seek(found.start)
        with xopen(file, "rb", threads=0) as unpacked:
            data = unpacked.read() if found.size is None else with_rest(unpacked, found.size)
    begin = 0 if found.is_first else next_record(data, 0)
    if begin < 0:  # all is of a record that begins before
        return b"" if found.is_last else b">"
    return data[begin:]


def with_rest(unpacked: BinaryIO, size: int) -> bytes:
    """Read some bytes, and those up to the next record, with its ``>``, which there may not be."""
    data = bytearray(unpacked.read(size + 1))
    place = size
    while (end := next_record(data, place)) < 0:
        place = max(size, len(data) - 1)  # the end of a line may be the last that was read
        more = unpacked.read(READ_BYTES)
        if not more:
            return bytes(data.removesuffix(b"\n")) + b"\n>"
        data += more
    return bytes(data[: end + 1])


def next_record(data: bytes | bytearray, start: int) -> int:
    """Return the place of the first record whose line before ends at ``start`` or later; -1."""
    places = [place for end in BEFORE_RECORD if (place := data.find(end, start)) >= 0]
    return min(places) + 1 if places else -1


def check_same(file: BinaryIO, inode: int) -> None:
    """Check that an open file is the one that was looked at before.

    Raises:
        OSError: it is not.
    """
    if os.fstat(file.fileno()).st_ino != inode:
        raise OSError("it was replaced meanwhile")
