"""The digest of a model's files, by which a producer without PyTorch knows its weights again.

It is of the files' content alone. The digest of a large file is remembered in the user's cache
folder for as long as the file is the same: with the same place, size and times on the same device.
"""

import hashlib
import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from common.paths import cache_folder
from common.segment_hash import hashing_threads, segment_hash

#: Bytes of a piece: each is hashed by one thread.
PIECE_BYTES = 16 << 20

#: Size in bytes of the smallest file whose digest is remembered: smaller ones take milliseconds.
LARGE_BYTES = 64 << 20

#: Seconds that a file must be unchanged before it is remembered. Within the resolution of a file
#: system's times, another change could leave them the same.
SETTLED_SECONDS = 2.0

#: Device, file, size, and times of the last change of its content and of its state.
Identity = tuple[int, int, int, int, int]


def identities(files: Sequence[Path]) -> list[Identity]:
    """Return what changes when a file is written or replaced."""
    stats = [file.stat() for file in files]
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats]


def model_digest(files: Sequence[Path]) -> str | None:
    """Return 16 hex digits that identify the content of a model's files; None if there are none.

    Raises:
        UserError: a file cannot be read, or is being written.
    """
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file_digest(file)}\0".encode())
    return digest.hexdigest()[:16]


def file_digest(file: Path) -> str:
    try:
        (before,) = identities([file])
        if before[2] < LARGE_BYTES:
            return hash_file(file)
        entry = cache_folder() / "files" / hashlib.sha256(repr(before).encode()).hexdigest()
        if remembered := recall(entry):
            return remembered
        digest = hash_file(file)
        (after,) = identities([file])
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from error
    if after != before:
        raise UserError(f"{file} changed while it was read: wait until it is written.")
    if time.time() - max(before[3:]) / 1e9 > SETTLED_SECONDS:
        remember(entry, digest)
    return digest


def hash_file(file: Path) -> str:
    """Return the hash of the hashes of a file's pieces."""
    with file.open("rb") as opened:
        return segment_hash(opened.fileno(), PIECE_BYTES, hashing_threads())


def recall(entry: Path) -> str | None:
    """Return what an entry of the cache says; None if there is none, or it is damaged."""
    try:
        found = entry.read_bytes()
    except OSError:
        return None
    return found.decode() if re.fullmatch(rb"[0-9a-f]{64}", found) else None


def remember(entry: Path, digest: str) -> None:
    """Write an entry of the cache; a folder that cannot be written remembers nothing."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        unfinished = entry.with_suffix(f".{uuid.uuid4().hex}")
        unfinished.write_text(digest)
        unfinished.replace(entry)
