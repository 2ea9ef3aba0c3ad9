"""The hash of a large file, by several threads: the SHA-256 of its segments' SHA-256s."""

import hashlib
import os
from collections.abc import Generator
from contextlib import closing
from itertools import count, takewhile

from common.bounded_map import bounded_map
from common.cpus import usable_cpus

#: Bytes read at once, into the one buffer of a segment: they stay in the cache of a CPU.
READ_BYTES = 1 << 20

#: Most threads that hash at the same time.
MOST_THREADS = 16


def hashing_threads() -> int:
    """Return the number of threads that hash: one for each CPU of this process, up to a limit."""
    return max(1, min(int(usable_cpus()), MOST_THREADS))


def segment_hash(file: int, segment: int, threads: int) -> str:
    """Return the SHA-256 of the SHA-256s of a file's segments in their order, as hex digits.

    The file ends where nothing more can be read, whatever its size was before.

    Args:
        file: the descriptor of a regular file; its position does not matter, and stays.
        segment: bytes of each segment, and at most of the last one.
        threads: segments that are hashed at the same time.

    Raises:
        OSError: the file cannot be read.
    """
    with closing(segment_digests(file, segment, threads)) as digests:
        return hashlib.sha256(b"".join(takewhile(bool, digests))).hexdigest()


def segment_digests(file: int, segment: int, threads: int) -> Generator[bytes]:
    """Yield the digest of each segment, and then, without end, ``b""``."""
    return bounded_map(lambda at: segment_digest(file, at, segment), count(0, segment), threads)


def segment_digest(file: int, start: int, size: int) -> bytes:
    """Return the SHA-256 of up to ``size`` bytes from ``start`` on; ``b""`` if there are none."""
    digest, at, end = hashlib.sha256(), start, start + size
    buffer = memoryview(bytearray(min(READ_BYTES, size)))
    while at < end and (read := os.preadv(file, [buffer[: end - at]], at)):
        digest.update(buffer[:read])
        at += read
    return digest.digest() if at > start else b""
