"""Cleaning a sequence: taking away what is written in it besides its letters."""

from typing import TYPE_CHECKING, NamedTuple

from common.alphabet import DNA, Alphabet

if TYPE_CHECKING:  # pydantic takes a third of the start of a process that only reads
    from common.job.output_form import Gaps

#: The signs of a gap in an alignment.
GAP_SIGNS = "-."

#: Letters that are codes of amino acids, but not of nucleotides, not even of several.
AMINO_ACIDS_ONLY = frozenset("EFILPQ")

#: Part of the letters of a nucleic acid that may be IUPAC's codes for several bases. Proteins that
#: happen to have no letter of AMINO_ACIDS_ONLY are short, or have more of them.
CODES_FOR_SEVERAL = 0.2

#: Number of letters from which a record that looks like DNA is no peptide by chance.
SURELY_DNA = 20

#: The warning about an input of DNA or RNA, which the output file has too.
LOOKS_LIKE_DNA = (
    "most records have hardly any letters but A, C, G, T, U and N, though the model is for proteins"
)


class Cleaned(NamedTuple):
    """A sequence without white space and stop, and what else was found in it."""

    residues: str  # upper case; empty if there is nothing but gaps
    gapped: bool  # there are gaps, or there were
    rna: bool  # each U became T


def clean(text: str, alphabet: Alphabet, gaps: "Gaps") -> Cleaned:
    """Return a sequence as a model takes it, but for letters that are not in the alphabet."""
    # As bytes: str.upper() would turn a German sharp s into SS.
    residues = without_stop("".join(text.split()).encode().upper().decode())
    letters = residues.replace("-", "").replace(".", "")
    gapped = 0 < len(letters) < len(residues)
    if gaps == "strip" or not letters:
        residues = letters
    rna = alphabet is DNA and "U" in residues
    return Cleaned(residues.replace("U", "T") if rna else residues, gapped, rna)


def without_stop(residues: str) -> str:
    """Return a sequence without the stops at its end: any ``*``, and a ``.`` after a letter.

    Several ``.`` are the gaps of an alignment.
    """
    residues = residues.rstrip("*")
    if residues[-1:] == "." and residues[-2:-1] not in ("", *GAP_SIGNS):
        return residues[:-1].rstrip("*")
    return residues


def unknown_letters(residues: str, alphabet: Alphabet) -> set[str]:
    """Return the signs of a cleaned sequence that are not in the alphabet."""
    if not residues.encode(errors="replace").translate(None, alphabet.encoded):
        return set()
    return set(residues) - alphabet.letters


def place_of(signs: set[str], text: str) -> tuple[int, int, str]:
    """Return where the first of some upper-case signs is in a sequence as it was given.

    Returns:
        The line of ``text``, from 0; the position in the sequence, from 1, without white space;
        the sign as it is written.
    """
    position = 0
    for number, line in enumerate(text.split("\n")):
        for sign in "".join(line.split()):
            position += 1
            if sign.encode().upper().decode() in signs:
                return number, position, sign
    raise ValueError(f"none of {signs} is in the sequence")


def looks_like_nucleic_acid(residues: str) -> bool:
    """Return whether a cleaned sequence has hardly any letters but A, C, G, T, U and N."""
    if not AMINO_ACIDS_ONLY.isdisjoint(residues):
        return False
    letters = residues.encode(errors="replace").translate(None, GAP_SIGNS.encode())
    others = letters.translate(None, b"ACGTUN")
    return len(others) <= CODES_FOR_SEVERAL * len(letters)
