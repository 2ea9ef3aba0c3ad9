"""FASTQ: reads with qualities, which are dropped."""

from collections.abc import Iterator
from typing import NamedTuple

from common.errors import InputError
from common.job.records import SHOWN
from producer.input.blocks import READ_BYTES, Block

#: Beginnings of lines that cannot be of a sequence, and that FASTA would read as something else.
NO_SEQUENCE = (">", "@", "#", ";", "\ufeff")


class Read(NamedTuple):
    """A record of FASTQ."""

    line: int  # of its header
    header: str
    sequence: list[str]  # in lines


def fastq_blocks(texts: Iterator[str], name: str) -> Iterator[Block]:
    """Yield the reads of a FASTQ file as FASTA in blocks.

    Raises:
        InputError: it is damaged, or cut short.
    """
    pieces: list[str] = []
    places: list[int] = []
    size = 0
    for line, header, sequence in reads(lines_of(texts), name):
        pieces.append("\n".join([f">{header}", *sequence]))
        places.append(line)
        size += len(pieces[-1])
        if size >= READ_BYTES:
            yield Block("\n".join(pieces), places[0], places)
            pieces, places, size = [], [], 0
    if pieces:
        yield Block("\n".join(pieces), places[0], places)


def lines_of(texts: Iterator[str]) -> Iterator[str]:
    """Yield the lines of a text that comes in pieces."""
    pending: list[str] = []
    for text in texts:
        first, *others = text.split("\n")
        pending.append(first)
        if others:
            yield "".join(pending)
            yield from others[:-1]
            pending = others[-1:]
    if last := "".join(pending):
        yield last


def reads(lines: Iterator[str], name: str) -> Iterator[Read]:
    """Yield each read of some lines; sequence and qualities may take several lines.

    Raises:
        InputError: a record is not one of FASTQ.
    """
    number = 0
    for line in lines:
        number += 1
        if not line.strip("\ufeff \t"):
            continue
        text = line.lstrip("\ufeff")
        if not text.startswith("@"):
            raise not_fastq(
                name, number, f"expected '@' at beginning of record, but got {cut(line)}"
            )
        read, sequence = Read(number, text[1:], []), ""
        for sequence in lines:
            number += 1
            if sequence.startswith("+"):
                break
            if sequence.lstrip().startswith(NO_SEQUENCE):
                raise not_fastq(
                    name, number, f"expected a sequence or '+', but got {cut(sequence)}"
                )
            read.sequence.append(sequence)
        if not sequence.startswith("+"):
            raise cut_short(name, read, "it has no line with + after its sequence")
        length = sum(len(part.strip()) for part in read.sequence)
        found = 0
        while found < length:
            qualities = next(lines, None)
            if qualities is None:
                raise cut_short(name, read, f"{found} of {length} qualities are there")
            number += 1
            found += len(qualities.strip())
        if found > length:
            raise not_fastq(
                name,
                number,
                f"record {cut(read.header)} has {found} qualities for {length} letters",
            )
        yield read


def cut(text: str) -> str:
    """Return the beginning of a text in quotes."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def not_fastq(name: str, line: int, what: str) -> InputError:
    return InputError(
        f"{name}, line {line}: not FASTQ: {what}. The file may be damaged.", path=name, line=line
    )


def cut_short(name: str, read: Read, what: str) -> InputError:
    return InputError(
        f"{name}, line {read.line}: the last record, {cut(read.header)}, is cut short: {what}. Is "
        "the file complete?",
        path=name,
        line=read.line,
    )
