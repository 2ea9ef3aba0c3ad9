"""What to do about a record that cannot be embedded."""

from common.alphabet import DNA, PROTEIN, Alphabet
from common.job.cleaning import AMINO_ACIDS_ONLY, GAP_SIGNS

EMPTY_ADVICE = "Remove it, or set empty to skip (leave such records out)"
SHORT_ADVICE = "Lower min_length, or set invalid to skip (leave such records out)"
EMPTY_FILE_ADVICE = "Leave the file out, or set empty to skip"

#: Signs, besides letters, that are written for one letter of a sequence.
IN_PLACE_OF_LETTERS = frozenset("*?" + GAP_SIGNS)


def stands_for_a_letter(sign: str) -> bool:
    """Return whether ``--unknown x`` may replace a sign: not a digit, nor anything of a table."""
    return sign.isalpha() or sign in IN_PLACE_OF_LETTERS


def gap_advice(alphabet: Alphabet) -> str:
    keep = " or to keep (embed them as the model's tokens of gaps)" if alphabet is PROTEIN else ""
    return f"Set gaps to strip (remove them){keep}"


def unknown_advice(sign: str, residues: str, alphabet: Alphabet) -> str:
    """Return what to do about a sign that is not in the alphabet."""
    replace = f"x (embed it as {alphabet.unknown}) or to " if stands_for_a_letter(sign) else ""
    fix = f"Fix it, or set unknown to {replace}skip (leave such records out)"
    if sign.isdigit():
        return f"Digits are no sequence: are they line numbers, or is it no FASTA? {fix}"
    if sign in GAP_SIGNS:
        return f"Gaps are removed if you set gaps to strip. {fix}"
    letters = set(residues)
    if alphabet is DNA and letters <= PROTEIN.letters and letters & AMINO_ACIDS_ONLY:
        return f"It looks like a protein: give a protein model. {fix}"
    return fix
