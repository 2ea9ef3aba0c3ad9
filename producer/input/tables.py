"""CSV and TSV with a column of ids and one of sequences."""

import csv
from collections.abc import Iterator

from common.errors import InputError
from common.text import counted
from producer.input.blocks import READ_BYTES, Block
from producer.input.columns import Columns, as_fasta, not_a_sequence
from producer.input.fastq import cut, lines_of

#: The most letters of a cell; by default Python allows 131,072.
CELL = 2**31 - 1


def table_blocks(texts: Iterator[str], name: str, columns: Columns) -> Iterator[Block]:
    """Yield the rows of a table as FASTA in blocks.

    Raises:
        InputError: there are no such columns, or a row is damaged.
    """
    pieces: list[str] = []
    places: list[int] = []
    size = 0
    for line, id_, sequence in rows_of(texts, name, columns):
        record = as_fasta(id_, sequence, in_lines=True)
        if record is None:
            raise not_a_sequence(sequence, f"line {line}", name)
        pieces.append(record)
        places.append(line)
        size += len(record)
        if size >= READ_BYTES:
            yield Block("\n".join(pieces), places[0], places, 0)
            pieces, places, size = [], [], 0
    if pieces:
        yield Block("\n".join(pieces), places[0], places, 0)


def rows_of(texts: Iterator[str], name: str, columns: Columns) -> Iterator[tuple[int, str, str]]:
    """Yield id and sequence of each row, and the line on which the sequence begins."""
    lines = (f"{line}\n" for line in lines_of(texts))
    first = next(lines, "").lstrip("\ufeff")
    if not first.strip():
        return
    csv.field_size_limit(CELL)
    # A header in quotes over several lines is not read: no table has one.
    rows = csv.reader(lines, delimiter=delimiter_of(first), strict=True)
    header = next(csv.reader([first], delimiter=delimiter_of(first)))
    try:
        id_place, place = columns.places([column.strip() for column in header], name)
    except InputError as error:
        if not first.startswith((">", "@")):
            raise
        raise InputError(
            f"{name}, line 1: expected the names of a table's columns, but got "
            f"{cut(first.strip())}. If it is FASTA or FASTQ, give it a name without .csv or .tsv.",
            path=name,
            line=1,
        ) from error
    line = 2
    try:
        for row in rows:
            if row:
                if len(row) != len(header):
                    raise InputError(
                        f"{name}, line {line}: the row has {counted(len(row), 'column')}, but the "
                        f"header {len(header)}. Correct it; a cell that has the sign between "
                        "columns in it needs quotes.",
                        path=name,
                        line=line,
                    )
                above = sum(cell.count("\n") for cell in row[:place])
                yield line + above, row[id_place].strip(), row[place]
            line = rows.line_num + 2
    except csv.Error as error:
        raise InputError(
            f"{name}, line {line}: not a row of a table ({error}). Is a quote left open, or the "
            "file cut short?",
            path=name,
            line=line,
        ) from error


def delimiter_of(header: str) -> str:
    """Return the sign between the columns: a tab, a semicolon or a comma."""
    if "\t" in header:
        return "\t"
    return ";" if ";" in header and "," not in header else ","
