"""A heartbeat of a worker process: what it says of itself to its supervisor, in a file."""

from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Beat(BaseModel):
    """What a process says of itself."""

    model_config = ConfigDict(frozen=True)

    alive: bool = True
    consumes: bool = True  # it looks for messages, or has no room for more
    reason: str = "consuming"  # what it does, or why it is not alive


def write_beat(file: Path, beat: Beat) -> None:
    """Replace a file's beat; nobody reads half of it."""
    new = file.with_suffix(".new")
    with suppress(OSError):  # the supervisor misses it
        new.write_text(beat.model_dump_json())
        new.replace(file)


def read_beat(file: Path) -> Beat:
    """Return the beat in a file; in a file without one, that of a process that consumes."""
    with suppress(OSError, ValueError):
        return Beat.model_validate_json(file.read_text())
    return Beat()
