"""The seal of a shard: a trailer that proves it whole before HDF5 sees it.

HDF5 ends the process, or never returns, on some files in which a single bit has changed. What
follows its own end of a file it ignores, and so do earlier versions of this program:

    HDF5 file | label: JSON | footer
"""

import os
import struct
from io import BufferedRandom, BufferedReader, FileIO
from typing import BinaryIO, NamedTuple

from pydantic import NonNegativeInt

from common.crc import crc32
from common.embeddings.checksums import DamagedError
from common.job.layout import shard_key
from common.rungs import Rung
from common.wire.messages import Document

#: The CRC-32 of the HDF5 file, the bytes in the label, and the CRC-32 of the label with these two.
NUMBERS = struct.Struct("<III")

#: The last bytes of a sealed shard.
MAGIC = b"VNPSEAL1"

FOOTER_BYTES = NUMBERS.size + len(MAGIC)

#: Bytes of a shard that are read at once.
CHUNK_BYTES = 2**20

#: The first bytes of an HDF5 file, and the most that are needed to find its end.
HDF5_MAGIC, SUPERBLOCK_BYTES = b"\x89HDF\r\n\x1a\n", 48


class Computed(Document):
    """Who computed a shard, and when, in seconds since the epoch by that worker's clock."""

    worker: str
    began: float  # once the batch was claimed
    ended: float  # right before the shard was written
    device_seconds: float  # of forward passes; several batches of a worker may be under way at once


class Label(Document):
    """What a shard is, for those who do not need its numbers."""

    job: str
    batch: NonNegativeInt
    rung: Rung  # in the shard's name
    created: float | None = None  # when the job was staged; not in shards of earlier versions
    precision: Rung
    tokens: NonNegativeInt
    records: NonNegativeInt
    weights: str
    computed: Computed | None = None  # not in shards of earlier versions

    @property
    def key(self) -> str:
        """The key of the object that this is."""
        return shard_key(self.job, self.batch, self.rung)


class Trailer(NamedTuple):
    """A trailer that is whole."""

    label: Label
    crc: int  # of the HDF5 file
    size: int  # of the HDF5 file


def seal(file: FileIO | BufferedRandom, label: Label) -> None:
    """Append the trailer to a shard that was written."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    crc = checksum_of(file, size)
    text = label.model_dump_json(exclude_unset=True).encode()
    checked = text + NUMBERS.pack(crc, len(text), 0)[:8]
    file.write(text + NUMBERS.pack(crc, len(text), crc32(checked)) + MAGIC)


def read_trailer(file: BinaryIO) -> Trailer | None:
    """Return a shard's trailer, which is all that is read; None if it is of an earlier version.

    Raises:
        DamagedError: it is neither.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - FOOTER_BYTES))
    footer = file.read(FOOTER_BYTES)
    if footer[NUMBERS.size :] != MAGIC:
        if end_of_hdf5(file) != size:
            raise DamagedError("it is cut short, or its end has changed")
        return None
    crc, label_bytes, expected = NUMBERS.unpack_from(footer)
    start = size - FOOTER_BYTES - label_bytes
    if start >= 0:
        file.seek(start)
        text = file.read(label_bytes)
        if crc32(text + footer[:8]) == expected:
            return Trailer(Label.model_validate_json(text), crc, start)
    raise DamagedError("its end has changed since it was written")


def prove(file: BufferedReader) -> Label | None:
    """Read a whole shard; return its label, or None if it is of an earlier version.

    Of an earlier version, no more than its size is proven.

    Raises:
        DamagedError: it is not what was written.
    """
    trailer = read_trailer(file)
    if trailer is None:
        return None
    file.seek(0)
    if checksum_of(file, trailer.size) != trailer.crc:
        raise DamagedError("it has another checksum than when it was written")
    return trailer.label


def checksum_of(file: FileIO | BufferedReader | BufferedRandom, size: int) -> int:
    """Return the CRC-32 of the next ``size`` bytes of a file."""
    buffer = memoryview(bytearray(min(size, CHUNK_BYTES)))
    crc = 0
    while size > 0:
        found = file.readinto(buffer[: min(size, CHUNK_BYTES)])
        if not found:
            raise DamagedError("it became shorter while it was read")
        crc, size = crc32(buffer[:found], crc), size - found
    return crc


def end_of_hdf5(file: BinaryIO) -> int | None:
    """Return where an HDF5 file ends, as its superblock says; None if it is none.

    Source: "Disk Format: Level 0A" in the HDF5 File Format Specification.
    """
    file.seek(0)
    head = file.read(SUPERBLOCK_BYTES)
    if len(head) < SUPERBLOCK_BYTES or not head.startswith(HDF5_MAGIC):
        return None
    place = 40 if head[8] < 2 else 28  # by the superblock's version
    return int.from_bytes(head[place : place + 8], "little")
