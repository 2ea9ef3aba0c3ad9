"""Records that a program has in memory, as an input."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from common.errors import InputError
from common.job.records import SHOWN, Sequences, with_ids
from producer.input.expand import Found
from producer.input.source import Source
from producer.input.sources import AnySource, together

#: An input as a program has it: a path, a folder, a pattern, ``s3://bucket/key``, a list of paths,
#: or sequences.
Input = str | Path | Sequence[Path] | Sequences


@contextmanager
def as_source(given: Input) -> Iterator[AnySource]:
    """Yield a source that reads ``given``; records are spooled to a temporary file.

    Raises:
        InputError: an id or a sequence that FASTA cannot hold, or no such file.
    """
    if isinstance(given, str | Path):
        with as_sources([str(given)]) as source:
            yield source
    elif isinstance(given, list | tuple) and given and all(isinstance(p, Path) for p in given):
        with as_sources(map(str, given)) as source:
            yield source
    else:
        with spooled(with_ids(cast(Sequences, given)), "records") as source:
            yield source


@contextmanager
def as_sources(
    names: Iterable[str], *, lists: Iterable[str] = (), sequences: Sequence[str] = ()
) -> Iterator[AnySource]:
    """Yield a source that reads everything that a user names.

    Args:
        names: paths, folders, patterns, ``-``, ``s3://bucket/key``.
        lists: files with a name in each line.
        sequences: sequences themselves, which get the ids seq_1, seq_2 and so on.

    Raises:
        InputError: nothing is named, twice the same, or what is not there.
    """
    found = Found()
    found.add(names)
    for list_file in lists:
        found.add_list(list_file)
    found.check_once()
    if not sequences:
        if not found.sources:
            raise InputError(
                "There is no input: name a file, a folder or - for standard input, or give "
                "--sequence or --from."
            )
        yield together(found.sources, found.left_out)
        return
    numbered = ((f"seq_{number}", letters) for number, letters in enumerate(sequences, start=1))
    with spooled(numbered, "sequences") as source:
        yield together([*found.sources, source], found.left_out)


@contextmanager
def spooled(pairs: Iterable[tuple[str, str]], label: str) -> Iterator[Source]:
    """Write records to a temporary file; yield it under the name that messages have for them."""
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        path = Path(folder) / f"{label}.fasta"
        write_fasta(pairs, path)
        yield Source(str(path), label=label)


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
