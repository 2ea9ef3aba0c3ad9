"""The object of a batch's copies: rows that are identical to an earlier one, and are not computed.

It is beside the batch's input, and has a line for each copy, of a row, its original, the letters
and the header; a header may have tabs.

    5120	17	142	sp|P69907|HBA_PANPA Hemoglobin subunit alpha
"""

from collections.abc import Iterable
from typing import NamedTuple

from common.job.records import first_word


class Copy(NamedTuple):
    """A row with the same letters as an earlier one."""

    row: int
    original: int  # an earlier row, which is computed: it is in the input object of some batch
    length: int  # letters in the input
    header: str

    @property
    def id(self) -> str:
        """The header's first word."""
        return first_word(self.header)


def encode_copies(copies: Iterable[Copy]) -> bytes:
    return "".join(
        [f"{row}\t{original}\t{length}\t{header}\n" for row, original, length, header in copies]
    ).encode()


def encode_copy_rows(rows: Iterable[tuple[int, int, int, bytes]]) -> bytes:
    """Return the same of copies whose header is encoded."""
    return b"".join([b"%d\t%d\t%d\t%b\n" % row for row in rows])


def decode_copies(data: bytes) -> list[Copy]:
    """Return the copies of a batch's object.

    Raises:
        ValueError: ``encode_copies`` cannot have written it.
    """
    *lines, rest = data.decode().split("\n")
    if rest:
        raise ValueError("the object is cut short")
    copies = []
    for line in lines:
        row, original, length, header = line.split("\t", 3)
        copies.append(Copy(int(row), int(original), int(length), header))
    return copies
