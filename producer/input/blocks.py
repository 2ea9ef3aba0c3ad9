"""Cutting FASTA into blocks of whole records, each with the line where it starts."""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from io import IncrementalNewlineDecoder
from itertools import chain
from typing import NamedTuple, Protocol, cast

from common.errors import InputError
from common.job.records import SHOWN
from producer.input.foreign import not_fasta, not_text

#: Number of bytes read at once: checking fewer records together would take longer, and more do not
#: fit into the cache.
READ_BYTES = 1 << 16

#: Lines before the first record: blank ones, and comments.
BEFORE_RECORDS = re.compile(r"(?:[\s\ufeff]|[#;][^\n]*\n)*")

#: A comment in a record, and what may stand before the > of one: blanks, or the byte order mark of
#: a file that was appended to another.
COMMENT = re.compile(r"\n[^\S\n]*[#;][^\n]*")
BEFORE_HEADER = re.compile(r"\n(?:[^\S\n]|\ufeff)+>")


class Block(NamedTuple):
    """Some whole records as FASTA; of a FASTA file as they are in it."""

    text: str  # from the first '>' on, without the newline at the end
    line: int  # of the first '>', from 1
    #: The line of each record, if they do not follow from the text.
    places: Sequence[int] | None = None
    #: Lines from a record's place to its first letters.
    header_lines: int = 1
    #: What a place is: a line, or the row of a table without lines.
    word: str = "line"

    def lines(self, pieces: Iterable[str]) -> Iterator[int]:
        """Yield the place of each record.

        Args:
            pieces: the texts of the records.
        """
        if self.places is not None:
            yield from self.places
            return
        line = self.line
        for piece in pieces:
            yield line
            line += 1 + piece.count("\n")


class Readable(Protocol):
    """A file as far as it is needed."""

    def read1(self, size: int) -> bytes:
        """Return some bytes; at the end none."""


def blocks(file: Readable, name: str, lines: int = 0) -> Iterator[Block]:
    """Yield the records of a file in blocks.

    Args:
        lines: of the file before what is read here, which begins with a record.

    Raises:
        InputError: it is not UTF-8, or does not begin with a record.
    """
    texts = decoded(file)
    line = 1 + lines
    pending: list[str] = []
    newline = ""  # the last of a text, held back: the next may begin with '>'
    try:
        head, first = from_first_record(texts, name)
        if not head:
            return
        line = first + lines
        for text in chain([head], texts):
            whole = newline + text
            newline = "\n" if whole.endswith("\n") else ""
            whole = whole.removesuffix("\n")
            end = whole.rfind("\n>")
            if end < 0:
                pending.append(whole)
                continue
            block = Block("".join([*pending, whole[:end]]), line)
            line += block.text.count("\n") + 1
            pending = [whole[end + 1 :]]
            yield block
        yield Block("".join(pending), line)
    except UnicodeDecodeError as error:
        before = "".join([*pending, newline]).count("\n")
        raise not_utf8(error, line + before, name) from error


def decoded(file: Readable) -> Iterator[str]:
    r"""Yield the text of a file, with ``\n`` for every kind of newline."""
    decoder = IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    while data := file.read1(READ_BYTES):
        yield decoder.decode(data)
    yield decoder.decode(b"", final=True)


def not_utf8(error: UnicodeDecodeError, line: int, name: str) -> InputError:
    """Return the error of bytes that are not UTF-8.

    Args:
        error: of the bytes that begin on this line.
    """
    bad = error.object
    before = bad[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    line += before.count(b"\n")
    if line == 1 and b"\0" in bad:
        return not_text(name)
    return InputError(
        f"{name}, line {line}: byte 0x{bad[error.start]:02x} is not text in UTF-8. If it is a "
        "letter with an accent, save the file as UTF-8 (iconv -f LATIN1 -t UTF-8); if not, the "
        "file may be damaged.",
        path=name,
        line=line,
    )


def from_first_record(texts: Iterator[str], name: str) -> tuple[str, int]:
    """Return what was read from the first ``>`` on, and its line; an empty text if there is none.

    Raises:
        InputError: there is something else before it than blank lines and comments.
    """
    head = rest = ""
    for text in texts:
        head += text
        before = cast(re.Match[str], BEFORE_RECORDS.match(head))
        rest, line = head[before.end() :], 1 + before[0].count("\n")
        if rest.startswith(">"):
            return rest, line
        whole = "\n" in rest or len(rest) > SHOWN
        if whole and not rest.startswith(("#", ";")):
            raise not_fasta(head, rest, line, name)
    if rest and not rest.startswith(("#", ";")):
        raise not_fasta(head, rest, line, name)
    return "", 0


def split_records(text: str) -> list[str]:
    """Return the records of a block, each without its first ``>``."""
    return text[1:].split("\n>")


def tidied(text: str) -> str:
    """Return a block without comments and without anything before a ``>``; lines stay the same."""
    return BEFORE_HEADER.sub("\n>", COMMENT.sub("\n", text))
