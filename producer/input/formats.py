"""The format of a source, decided by its content."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from common.errors import InputError
from common.store.bucket import S3Store, split_s3_url
from producer.input.alignments import alignment_blocks
from producer.input.blocks import READ_BYTES, Block, blocks, decoded, not_utf8
from producer.input.columns import USUAL_COLUMNS, Columns
from producer.input.fastq import fastq_blocks
from producer.input.foreign import check_binary
from producer.input.parquet import parquet_blocks
from producer.input.source import COMPRESSED_SUFFIXES, Source
from producer.input.tables import table_blocks

#: Signs before the first record of a text: blanks, and a byte order mark.
BLANKS = b" \t\r\n\xef\xbb\xbf"

TABLE_SUFFIXES = (".csv", ".tsv")


class Rest:
    """A file whose first bytes were read already."""

    def __init__(self, first: bytes, file: BinaryIO) -> None:
        self._first = first
        self._file = file

    def read1(self, size: int) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        found: bytes = self._file.read1(size)  # type: ignore[attr-defined]
        return found


def blocks_of(source: Source, columns: Columns) -> Iterator[Block]:
    """Yield the records of a source in blocks, as FASTA.

    Raises:
        InputError: it is of no format that is read, or damaged.
    """
    with source.open() as file:
        first = file.read1(READ_BYTES)  # type: ignore[attr-defined]
        yield from blocks_from(first, file, source, columns)


def blocks_from(first: bytes, file: BinaryIO, source: Source, columns: Columns) -> Iterator[Block]:
    """Yield the same of a source that is open.

    Args:
        first: what was read of it already.
        file: the rest.
    """
    name = source.shown
    if first.startswith(b"PAR1"):
        yield from stored_parquet(source, columns)
        return
    if first.startswith((b"BAM\1", b"CRAM")):
        check_is_file(source, "BAM and CRAM are")
        if first.startswith(b"CRAM"):
            check_not_packed(source, "CRAM", b"CRAM")
        yield from alignment_blocks(source.name, name)
        return
    check_binary(first, name)
    rest = Rest(first, file)
    begin = first.lstrip(BLANKS)[:1]
    if is_table(source, columns, begin):
        yield from checked(rest, name, columns)
    elif begin == b"@":
        yield from checked(rest, name, None)
    else:
        yield from blocks(rest, name)


def is_fasta(first: bytes, source: Source, columns: Columns) -> bool:
    """Return whether a source is FASTA that begins with a record, and neither binary nor a table.

    Args:
        first: its first bytes, unpacked.
    """
    begin = first.lstrip(BLANKS)[:1]
    return begin == b">" and b"\0" not in first and not is_table(source, columns, begin)


def is_table(source: Source, columns: Columns, begin: bytes) -> bool:
    """Return whether a source is read as CSV or TSV: by its suffix, or since columns are named.

    Args:
        begin: its first sign.
    """
    name = source.name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    if name.endswith(TABLE_SUFFIXES):
        return True
    return columns != USUAL_COLUMNS and begin not in (b">", b"@", b"")


def checked(rest: Rest, name: str, columns: Columns | None) -> Iterator[Block]:
    """Yield the blocks of a table, or without columns of FASTQ.

    Raises:
        InputError: it is not UTF-8, too.
    """
    line = 1

    def counted() -> Iterator[str]:
        nonlocal line
        for text in decoded(rest):
            yield text
            line += text.count("\n")

    try:
        if columns is None:
            yield from fastq_blocks(counted(), name)
        else:
            yield from table_blocks(counted(), name, columns)
    except UnicodeDecodeError as error:
        raise not_utf8(error, line, name) from error


def stored_parquet(source: Source, columns: Columns) -> Iterator[Block]:
    if source.is_s3:
        bucket, key = split_s3_url(source.name)
        with S3Store(bucket, "").open_ranges(key) as file:
            yield from parquet_blocks(file, source.shown, columns)
        return
    check_is_file(source, "Parquet is")
    check_not_packed(source, "Parquet", b"PAR1")
    with Path(source.name).open("rb") as file:
        yield from parquet_blocks(file, source.shown, columns)


def check_not_packed(source: Source, what: str, begin: bytes) -> None:
    """Raise InputError if a file does not begin as its unpacked content does."""
    with Path(source.name).open("rb") as file:
        if file.read(len(begin)) != begin:
            raise InputError(
                f"{source.shown}: {what} inside another compression is not read. Unpack it first.",
                path=source.path,
            )


def check_is_file(source: Source, what: str) -> None:
    """Raise InputError unless a source is a file of this machine."""
    if source.is_s3 or source.is_stream:
        raise InputError(
            f"{source.shown}: {what} read from a file only: save it as one first, and name that.",
            path=source.path,
        )
