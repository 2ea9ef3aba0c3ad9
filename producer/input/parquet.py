"""Parquet with a column of ids and one of sequences, read by pyarrow."""

from collections.abc import Iterator
from importlib import import_module
from itertools import count
from typing import Any, BinaryIO

from common.errors import InputError, UserError
from common.installing import how_to_install
from producer.input.blocks import Block
from producer.input.columns import Columns, as_fasta, not_a_sequence
from producer.input.problems import first_line

#: Rows that are read at once.
ROWS = 2000


def parquet_blocks(file: BinaryIO, name: str, columns: Columns) -> Iterator[Block]:
    """Yield the rows of a Parquet file as FASTA in blocks.

    Raises:
        InputError: there are no such columns, or they do not hold texts.
        UserError: pyarrow is not installed.
    """
    table = opened(file, name)
    header = table.schema_arrow.names
    places = columns.places(header, name)
    chosen = [header[place] for place in places]
    check_text(table.schema_arrow.field(places[1]), name)
    rows = count(1)
    for batch in table.iter_batches(batch_size=ROWS, columns=list(dict.fromkeys(chosen))):
        ids, sequences = (batch.column(column).to_pylist() for column in chosen)
        pieces, numbers = [], []
        for id_, sequence, row in zip(ids, sequences, rows, strict=False):
            text = text_of(sequence)
            record = as_fasta(text_of(id_), text)
            if record is None:
                raise not_a_sequence(text, f"row {row}", name)
            pieces.append(record)
            numbers.append(row)
        if pieces:
            yield Block("\n".join(pieces), numbers[0], numbers, 0, "row")


def opened(file: BinaryIO, name: str) -> Any:
    """Open a Parquet file."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            f"{name} is Parquet, and pyarrow is not installed, which reads it: "
            f"{how_to_install('parquet')}"
        ) from error
    try:
        return parquet.ParquetFile(file)
    except ValueError as error:
        raise InputError(
            f"{name}: a damaged Parquet file ({first_line(error)}). Is it complete?",
            path=name,
        ) from error


def check_text(field: Any, name: str) -> None:
    """Check that a column holds texts.

    Raises:
        InputError: it holds something else.
    """
    types = import_module("pyarrow").types
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    if not any(
        is_of(kind)
        for is_of in (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    ):
        raise InputError(
            f"{name}: column {field.name!r} holds {field.type}, not texts: name the one with the "
            "sequences by --sequence-column (in Python: sequence_column).",
            path=name,
        )


def text_of(value: Any) -> str:
    return "" if value is None else str(value)
