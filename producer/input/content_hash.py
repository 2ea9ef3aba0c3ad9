"""The hash of an input file's content, from which the name of its job follows."""

import hashlib
import io
import os
import stat

from common.segment_hash import hashing_threads, segment_hash

#: Bytes of the smallest file that is hashed by several threads. Smaller ones take less than a
#: second, and their jobs keep the names that they have had in every version.
LARGE_BYTES = 1 << 30

#: Bytes of a segment of a large file: the hash is the SHA-256 of their SHA-256s, so that it is
#: another one for other segments.
SEGMENT_BYTES = 64 << 20


def content_hash(
    file: io.BufferedReader, *, large: int = LARGE_BYTES, segment: int = SEGMENT_BYTES
) -> str:
    """Return a hash of a file's content as hex digits.

    It is the SHA-256, for regular files of ``large`` bytes or more that of the SHA-256s of their
    segments in their order. What is written while the file is read may be part of it, or not.

    Args:
        file: at its beginning.
        large: bytes from which on a file is hashed in segments.
        segment: bytes of each of these, and at most of the last one.

    Raises:
        OSError: the file cannot be read.
    """
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size >= large:
        return segment_hash(file.fileno(), segment, hashing_threads())
    return hashlib.file_digest(file, "sha256").hexdigest()
