"""Several sources that are read one after the other, as one input."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from common.bounded_map import bounded_map
from common.segment_hash import hashing_threads
from common.text import counted
from producer.input.content_hash import LARGE_BYTES
from producer.input.source import Source


@dataclass(frozen=True)
class Sources:
    """An input of two sources or more; a single one is a ``Source``."""

    parts: tuple[Source, ...]
    #: Files of folders that are not read, since their suffixes are of something else.
    left_out: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The input's name in messages and in the manifest."""
        more = len(self.parts) - 1
        return f"{self.parts[0].shown} and {counted(more, 'more source')}"

    @property
    def path(self) -> None:
        """No path: a message about all sources names none of them."""
        return None

    @property
    def stem(self) -> str:
        """A name for the job, which tells the first file and how many there are."""
        return f"{self.parts[0].stem[:25]}-and-{len(self.parts) - 1}-more"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of each source's name and content: rows have the names in the output."""
        named = list(
            zip([part.shown for part in self.parts], fingerprints(self.parts), strict=True)
        )
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def estimated_bytes(self) -> int | None:
        """Estimate the bytes of all sources; None if one's is unknown."""
        sizes = [part.estimated_bytes() for part in self.parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


def fingerprints(parts: Sequence[Source]) -> list[str]:
    """Return the fingerprint of each source, of which files are hashed at the same time.

    A large file has all threads for itself.
    """
    small = [part for part in parts if is_small_file(part)]
    hashes = bounded_map(Source.read_fingerprint, small, hashing_threads())
    known = dict(zip(small, hashes, strict=True))
    return [known.get(part) or part.fingerprint for part in parts]


def is_small_file(part: Source) -> bool:
    """Return whether a source is a file that one thread hashes."""
    path = Path(part.name)
    return not part.is_stream and path.is_file() and path.stat().st_size < LARGE_BYTES


#: Everything that a job reads.
AnySource = Source | Sources


def together(parts: Sequence[Source], left_out: Sequence[str] = ()) -> AnySource:
    """Return sources as one input; a single one as itself, so that its job has its old name."""
    if len(parts) == 1:
        return replace(parts[0], left_out=tuple(left_out))
    return Sources(tuple(parts), tuple(left_out))
