"""The columns of a table that have ids and sequences."""

from collections.abc import Sequence
from typing import NamedTuple

from common.errors import InputError

#: Number of columns that a message names.
SHOWN_COLUMNS = 20


class Columns(NamedTuple):
    """The names of two columns; None: the one that is named as the field says."""

    id: str | None = None
    sequence: str | None = None

    def places(self, header: Sequence[str], name: str) -> tuple[int, int]:
        """Return the positions of both columns.

        Args:
            header: the names of all columns.
            name: of the table, for messages.

        Raises:
            InputError: there is no such column, or two; the error names those that are there.
        """
        return (
            self._place(self.id, "id", header, name),
            self._place(self.sequence, "sequence", header, name),
        )

    def _place(self, wanted: str | None, usual: str, header: Sequence[str], name: str) -> int:
        if wanted is None:
            found = [place for place, column in enumerate(header) if column.lower() == usual]
        else:
            found = [place for place, column in enumerate(header) if column == wanted]
        if len(found) == 1:
            return found[0]
        there = ", ".join(map(repr, header[:SHOWN_COLUMNS]))
        more = f" and {len(header) - SHOWN_COLUMNS:,} more" if len(header) > SHOWN_COLUMNS else ""
        what = "two columns" if found else "no column"
        raise InputError(
            f"{name} has {what} {wanted or usual!r}. Its columns are {there}{more}: name the one "
            f"with the {usual}s by --{usual}-column (in Python: {usual}_column).",
            path=name,
        )


#: The columns of a table if none are named.
USUAL_COLUMNS = Columns()


def as_fasta(id_: str, sequence: str, *, in_lines: bool = False) -> str | None:
    """Return a record's text; None if FASTA would read the sequence as something else.

    Args:
        in_lines: whether to keep the line breaks of the sequence, so that a letter's line is found.
    """
    lines = ["".join(line.split()) for line in sequence.split("\n")]
    if "".join(lines).startswith((">", "#", ";", "\ufeff")):
        return None
    if in_lines and not any(line.startswith((">", "#", ";", "\ufeff")) for line in lines):
        letters = "\n".join(lines)
    else:
        letters = "".join(lines)
    return f">{' '.join(id_.splitlines())}\n{letters}"


def not_a_sequence(sequence: str, place: str, name: str) -> InputError:
    return InputError(
        f"{name}, {place}: {sequence[:60]!r} is not a sequence. Correct it, or name another column "
        "by --sequence-column (in Python: sequence_column).",
        path=name,
    )
