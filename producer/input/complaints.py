"""What is wrong with a record: what a message says of it, what to do, and of which kind it is."""

from typing import NamedTuple

from common.alphabet import Alphabet
from producer.input.advice import EMPTY_ADVICE, SHORT_ADVICE, gap_advice, unknown_advice
from producer.input.problems import Kind


class Complaint(NamedTuple):
    """What is wrong with a record."""

    what: str
    advice: str
    kind: Kind


EMPTY = Complaint("has no sequence", EMPTY_ADVICE, "empty")

#: HDF5 could not store it.
NUL = Complaint("has a NUL in its header", "The file may be damaged", "header")


def gap(sign: str, position: int, alphabet: Alphabet) -> Complaint:
    what = f"has {sign!r} at position {position}, which is a gap"
    return Complaint(what, gap_advice(alphabet), "gaps")


def letter(sign: str, position: int, residues: str, alphabet: Alphabet) -> Complaint:
    what = (
        f"has {sign!r} at position {position}, which is not one of the model's {alphabet.letter}s"
    )
    return Complaint(what, unknown_advice(sign, residues, alphabet), "letters")


def too_short(letters: int, limit: int, alphabet: Alphabet) -> Complaint:
    what = f"has {letters:,} {alphabet.plural}, fewer than the min_length of {limit:,}"
    return Complaint(what, SHORT_ADVICE, "short")


def too_long(letters: int, limit: int, alphabet: Alphabet) -> Complaint:
    what = f"has {letters:,} {alphabet.plural}, more than the limit of {limit:,}"
    return Complaint(what, "Raise max_residues, or set long to truncate or window", "long")
