"""Both strands of a text of DNA, and where codons are stops, for many chunks at once."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from producer.translation.chunks import Numbers
from producer.translation.genetic_codes import BASES, amino_acids

#: A codon is a number with three digits of base 5: a base is 0 to 3, and any other letter 4.
DIGITS = 5

#: The digit of each letter.
DIGIT_OF = bytes(BASES.find(chr(n)) if chr(n) in BASES else DIGITS - 1 for n in range(256))

#: The complement of A, C, G and T; other letters stay, as VirNucPro leaves them.
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")

#: What stands for a codon with another letter than A, C, G and T.
UNKNOWN = "\0"

FRAMES = 3


class Strand(NamedTuple):
    """One strand of a text of T bases. Places are counted in the direction in which it is read."""

    text: bytes  # T, as it is written
    is_reverse: bool
    codons: NDArray[np.uint8]  # T - 2: the number of the codon at each place
    table: bytes  # 256: the amino acid of a number
    stops: tuple[Numbers, ...]  # where a stop begins, for each remainder of its place by 3

    def letters(self, start: int, end: int) -> str:
        """Return the bases from one place to another, in the direction in which they are read."""
        if not self.is_reverse:
            return self.text[start:end].decode("ascii")
        written = self.text[len(self.text) - end : len(self.text) - start]
        return written.translate(COMPLEMENT)[::-1].decode("ascii")

    def protein(self, start: int, end: int) -> str:
        """Return the amino acids of whole codons, from one place to another."""
        numbers = self.codons[start : max(start, end - FRAMES + 1) : FRAMES]
        return numbers.tobytes().translate(self.table).decode("ascii")


def codon_table(code: int, *, is_reverse: bool) -> bytes:
    """Return the amino acid of each codon number of ``DIGITS``, or ``UNKNOWN``, ``[256]``.

    Args:
        is_reverse: whether the number is that of the codon on the other strand.
    """
    table = bytearray(256)
    for number, letter in enumerate(amino_acids(code)):
        codon = "".join(BASES[number // 4**place % 4] for place in (2, 1, 0))
        if is_reverse:
            codon = codon.encode().translate(COMPLEMENT)[::-1].decode()
        first, second, third = map(BASES.index, codon)
        table[(first * DIGITS + second) * DIGITS + third] = ord(letter)
    return bytes(table)


def strands_of(letters: str, code: int) -> tuple[Strand, Strand]:
    """Return both strands of a text, the first as it is written.

    Args:
        letters: upper case, of ASCII.
        code: NCBI's number of the genetic code.
    """
    text = letters.encode()
    codons = codons_of(text)
    forward = codon_table(code, is_reverse=False), codon_table(code, is_reverse=True)
    stops, reverse_stops = (stops_of(codons, table) for table in forward)
    return (
        Strand(text, False, codons, forward[0], by_remainder(stops)),
        Strand(
            text,
            True,
            codons[::-1],
            forward[1],
            by_remainder((len(codons) - 1 - reverse_stops)[::-1]),
        ),
    )


def codons_of(text: bytes) -> NDArray[np.uint8]:
    """Return the number of the codon that begins at each base ``[T - 2]``."""
    digits = np.frombuffer(text.translate(DIGIT_OF), np.uint8)
    if len(digits) < FRAMES:
        return np.zeros(0, np.uint8)
    codons = digits[:-2] * np.uint8(DIGITS)
    codons += digits[1:-1]
    codons *= np.uint8(DIGITS)
    codons += digits[2:]
    return codons


def stops_of(codons: NDArray[np.uint8], table: bytes) -> Numbers:
    """Return the places of codons that are stops."""
    is_stop = np.zeros(len(codons), np.bool_)
    for number, letter in enumerate(table):
        if letter == ord("*"):
            is_stop |= codons == number
    return np.flatnonzero(is_stop)


def by_remainder(places: Numbers) -> tuple[Numbers, ...]:
    """Return the places with each remainder by 3."""
    remainders = places % FRAMES
    return tuple(places[remainders == frame] for frame in range(FRAMES))


def open_frames(strand: Strand, starts: Numbers, lengths: Numbers) -> NDArray[np.bool_]:
    """Return which frames of chunks ``[c, 3]`` have a codon, and none that is a stop.

    Args:
        starts: of the chunks in the strand.
        lengths: of them.
    """
    found = np.zeros((len(starts), FRAMES), np.bool_)
    for remainder, stops in enumerate(strand.stops):
        # Of three frames one begins at a place with this remainder.
        frames = (remainder - starts) % FRAMES
        first = starts + frames
        end = first + (lengths - frames) // FRAMES * FRAMES
        # The number of stops before the frame, and before its end.
        before, until = np.searchsorted(stops, first), np.searchsorted(stops, end)
        found[np.arange(len(starts)), frames] = (before == until) & (end > first)
    return found
