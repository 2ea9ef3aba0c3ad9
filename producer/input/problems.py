"""The bad records of an input, listed together."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from common.errors import InputError
from common.job.records import SHOWN
from common.text import counted
from producer.input.source import Source
from producer.input.sources import AnySource

#: Number of bad records that are shown.
LISTED = 20


#: What is wrong with a record: it has no sequence, is too short or too long, has letters or gaps
#: that may not be, or a header that cannot be stored.
Kind = Literal["empty", "short", "long", "letters", "gaps", "header"]

#: Kinds of bad records that ``--invalid`` decides on together.
LEFT_OUT_BY_INVALID: frozenset[Kind] = frozenset({"empty", "short", "letters"})


class Problem(NamedTuple):
    """A record that cannot be embedded."""

    source: Source  # the file
    number: int  # of the record in the file, from 1
    header: str
    line: int  # in the file, from 1, where the problem is
    what: str
    advice: str
    kind: Kind
    word: str = "line"  # what the line is: also a row, or a read

    def moved(self, source: Source, records: int, lines: int) -> "Problem":
        """Return the problem as it is in a file that has so much before what was read."""
        return self._replace(source=source, number=self.number + records, line=self.line + lines)

    @property
    def place(self) -> str:
        return f"{self.word} {self.line}"

    @property
    def record(self) -> str:
        shown = self.header if len(self.header) <= SHOWN else f"{self.header[:SHOWN]}…"
        return f"record {self.number} ({shown!r})"


def first_line(error: Exception) -> str:
    """Return an error as part of a sentence: its first line, or else what kind it is."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(" .:") if text else type(error).__name__


def nothing_left(source: AnySource, empty: int, skipped: int, short: int = 0) -> InputError:
    """Return the error of an input of which all records are left out.

    Args:
        source: all that was read.
        empty: number of records without a sequence.
        skipped: number of records with unknown letters.
        short: number of records that are too short.
    """
    counts = {
        "without a sequence": empty,
        "with unknown letters": skipped,
        "shorter than min_length": short,
    }
    parts = [f"{number:,} {what}" for what, number in counts.items() if number]
    left_out = f"all records are left out ({', '.join(parts)})" if parts else "all files are empty"
    return InputError(
        f"{source.shown}: nothing is left to embed: {left_out}. Is it the right input?",
        path=source.path,
    )


class Problems:
    """The first bad records of an input, and how many there are."""

    def __init__(self) -> None:
        self.kinds: Counter[Kind] = Counter()
        self.first: list[Problem] = []

    @property
    def count(self) -> int:
        return self.kinds.total()

    def add(self, problem: Problem) -> None:
        self.kinds[problem.kind] += 1
        if len(self.first) < LISTED:
            self.first.append(problem)

    def add_all(self, kinds: Counter[Kind], first: Iterable[Problem]) -> None:
        """Add the problems of the next records: how many of each kind, and the first of them."""
        self.kinds.update(kinds)
        self.first = [*self.first, *first][:LISTED]

    def error(self, source: AnySource) -> InputError:
        """Return the error that names the bad records; its place is that of the first one.

        Args:
            source: all that was read.
        """
        first = self.first[0]
        in_file = first.source.path is not None
        return InputError(
            self._describe_one() if self.count == 1 else self._describe_all(source),
            path=first.source.path,
            line=first.line if in_file and first.word == "line" else None,
            record=first.number,
        )

    def _describe_one(self) -> str:
        problem = self.first[0]
        if problem.source.path is None:
            return f"R{problem.record[1:]} {problem.what}. {problem.advice}."
        return (
            f"{problem.source.shown}, {problem.place}: {problem.record} {problem.what}. "
            f"{problem.advice}."
        )

    def _describe_all(self, source: AnySource) -> str:
        lines = [f"{source.shown}: {counted(self.count, 'record')} cannot be embedded."]
        for problem in self.first:
            place = "" if problem.source.path is None else f"{problem.place}: "
            if len(source.parts) > 1:
                place = f"{problem.source.shown}, {place}"
            lines.append(f"  {place}{problem.record} {problem.what}.")
        if self.count > LISTED:
            lines.append(f"  … and {self.count - LISTED:,} more.")
        advice = dict.fromkeys(problem.advice for problem in self.first)
        if len(self.kinds.keys() & LEFT_OUT_BY_INVALID) > 1:
            lines.append("To leave all such records out, set invalid to skip. By kind:")
        return "\n".join([*lines, *(f"{text}." for text in advice)])
