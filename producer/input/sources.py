"""Several sources that are read one after the other, as one input."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from common.text import counted
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
        named = [(part.shown, part.fingerprint) for part in self.parts]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()

    def estimated_bytes(self) -> int | None:
        """Estimate the bytes of all sources; None if one's is unknown."""
        sizes = [part.estimated_bytes() for part in self.parts]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


#: Everything that a job reads.
AnySource = Source | Sources


def together(parts: Sequence[Source], left_out: Sequence[str] = ()) -> AnySource:
    """Return sources as one input; a single one as itself, so that its job has its old name."""
    if len(parts) == 1:
        return replace(parts[0], left_out=tuple(left_out))
    return Sources(tuple(parts), tuple(left_out))
