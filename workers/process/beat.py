"""A heartbeat of a worker process: what it says of itself to its supervisor, in a file."""

import os
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from pydantic import BaseModel, ConfigDict

#: Bytes of a file with a beat, and characters of the longest reason, which then fits.
BLOCK_BYTES, REASON_LENGTH = 4096, 600


class Beat(BaseModel):
    """What a process says of itself."""

    model_config = ConfigDict(frozen=True)

    alive: bool = True
    consumes: bool = True  # it looks for messages, or has no room for more
    reason: str = "consuming"  # what it does, or why it is not alive


def write_beat(file: Path, beat: Beat) -> None:
    """Overwrite a file's beat in its place, for which there is room on a full disk too."""
    with suppress(OSError):  # the supervisor misses it
        opened = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(opened, block_of(beat), 0)
        except OSError:  # no room for the first, or the file system writes it to another place
            if beat.alive:
                os.utime(opened)
        finally:
            os.close(opened)


def read_beat(file: Path) -> Beat | None:
    """Return the beat in a file; None if there is none, or if it is just being written."""
    with suppress(OSError, ValueError):
        text, _, checksum = file.read_bytes().rstrip().rpartition(b" ")
        if int(checksum) == crc32(text):
            return Beat.model_validate_json(text)
    return None


def block_of(beat: Beat) -> bytes:
    """Return a beat as it is in a file: of the same length as all others, with a checksum."""
    text = beat.model_copy(update={"reason": beat.reason[:REASON_LENGTH]}).model_dump_json()
    return f"{text} {crc32(text.encode())}".encode().ljust(BLOCK_BYTES)
