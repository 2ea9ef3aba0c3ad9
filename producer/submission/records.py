"""Records that a program has in memory, as an input."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError
from common.job.records import SHOWN, Sequences, with_ids
from common.paths import user_path
from producer.input.source import Source

#: An input as a program has it: a path, ``s3://bucket/key``, or sequences.
Input = str | Path | Sequences


@contextmanager
def as_source(given: Input) -> Iterator[Source]:
    """Yield a source that reads ``given``; records are spooled to a temporary file.

    Raises:
        InputError: an id or a sequence that FASTA cannot hold, or no such file.
    """
    if isinstance(given, str | Path):
        text = str(given)
        source = Source(str(user_path(text)) if text.startswith("~") else text)
        source.check()
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        path = Path(folder) / "records.fasta"
        write_fasta(with_ids(given), path)
        yield Source(str(path), label="records")


def write_fasta(pairs: Iterable[tuple[str, str]], path: Path) -> None:
    """Write records to a FASTA file, one sequence a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, (id_, sequence) in enumerate(pairs, start=1):
            letters = "".join(sequence.split())
            problem = ""
            if any(sign in id_ for sign in "\r\n"):
                problem = "has a line break in its id"
            elif id_ and id_.split() != [id_]:
                problem = "has a space in its id, which would end it: replace it, as by _"
            elif ">" in letters or letters.startswith((";", "#", "\ufeff")):
                problem = "is FASTA rather than a sequence: it has '>' in it, or begins a comment"
            if problem:
                raise InputError(f"Record {number} ({id_[:SHOWN]!r}) {problem}.", record=number)
            file.write(f">{id_}\n{letters}\n")
