"""Whether an input is of the molecule that a model is for, decided by shares of its letters.

A protein has a quarter of its letters from ACGTUN, and a third from ``AMINO_ACIDS_ONLY``; a nucleic
acid nearly all and none. From 20 letters on, neither passes for the other by chance once in a
million. A repetitive peptide may still have the letters of DNA: an input is refused as DNA only if
nearly all records have them, if they are enough together, and if all four bases are among them.
"""

from collections.abc import Callable
from typing import NamedTuple

from common.alphabet import PROTEIN, Alphabet
from common.errors import InputError
from common.job.cleaning import AMINO_ACIDS_ONLY, GAP_SIGNS, SURELY_DNA
from common.job.records import SHOWN
from producer.input.problems import Problem
from producer.input.sources import AnySource

#: Letters of a record from which on its shares tell the molecule.
ENOUGH_OF_A_RECORD = SURELY_DNA

#: Letters of all records of DNA or RNA, below which an input is not refused.
ENOUGH_LETTERS = 50

#: Share of the records that are of the other molecule in an input that is refused. Fewer are a
#: mixture, which is warned of.
NEARLY_ALL = 0.9

#: Share of ACGTUN in a nucleic acid. IUPAC's codes for several bases are rarely a tenth.
NUCLEIC_SHARE = 0.9

#: Share of ``AMINO_ACIDS_ONLY`` in a protein: less than a third of what proteins have.
PROTEIN_SHARE = 0.1

#: Numbers of records, or of letters of the other molecule, after which an input is refused without
#: being read to its end.
EARLY_RECORDS, EARLY_LETTERS = 1000, 10_000_000

BASES = b"ACGTUN"


def letters_of(residues: str) -> bytes:
    """Return a cleaned sequence without gaps."""
    return residues.encode(errors="replace").translate(None, GAP_SIGNS.encode())


def is_nucleic_acid(residues: str) -> bool:
    """Return whether a cleaned sequence is so long and so much of ACGTUN that it is no protein."""
    letters = letters_of(residues)
    others = len(letters.translate(None, BASES))
    return len(letters) >= ENOUGH_OF_A_RECORD and others <= (1 - NUCLEIC_SHARE) * len(letters)


def is_protein(residues: str) -> bool:
    """Return whether a cleaned sequence has too many letters of proteins alone to be DNA."""
    letters = letters_of(residues)
    found = sum(letters.count(letter.encode()) for letter in AMINO_ACIDS_ONLY)
    return len(letters) >= ENOUGH_OF_A_RECORD and found >= PROTEIN_SHARE * len(letters)


class Counted(NamedTuple):
    """What ``OtherMolecule`` has counted."""

    records: int
    letters: int
    bases: int
    kinds: frozenset[str]  # of bases
    example: Problem | None


class OtherMolecule:
    """The records of an input that are surely not of the molecule that a model is for.

    Args:
        alphabet: of the model.
    """

    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet
        self.belongs: Callable[[str], bool] = is_nucleic_acid if alphabet is PROTEIN else is_protein
        self.records = self.letters = self.bases = 0
        self.example: Problem | None = None
        self._bases: set[str] = set()

    def add(self, residues: str, example: Callable[[str], Problem]) -> None:
        """Count a record that belongs to it.

        Args:
            residues: its letters.
            example: returns the record's place in a message, given what it is.
        """
        letters = letters_of(residues)
        self.records += 1
        self.letters += len(letters)
        self.bases += len(letters) - len(letters.translate(None, BASES))
        if len(self._bases) < len("ACGT"):
            self._bases |= set(residues.replace("U", "T")) & set("ACGT")
        if self.example is None:
            shown = residues if len(residues) <= SHOWN else f"{residues[:SHOWN]}…"
            self.example = example(f"is {shown}")

    def counted(self) -> Counted:
        """Return what was counted so far."""
        kinds = frozenset(self._bases)
        return Counted(self.records, self.letters, self.bases, kinds, self.example)

    def add_counted(self, found: Counted) -> None:
        """Count what another one has counted of the next records."""
        self.records += found.records
        self.letters += found.letters
        self.bases += found.bases
        self._bases |= found.kinds
        self.example = self.example or found.example

    def refuses(self, read: int, *, to_the_end: bool) -> bool:
        """Return whether nearly all records read so far are of this molecule.

        Args:
            read: number of records that have a sequence.
            to_the_end: whether there are no others.
        """
        if not (to_the_end or read >= EARLY_RECORDS or self.letters >= EARLY_LETTERS):
            return False
        if not self.records or self.records < NEARLY_ALL * read:
            return False
        varied = self.letters >= ENOUGH_LETTERS and len(self._bases) == len("ACGT")
        return varied or self.alphabet is not PROTEIN

    def error(self, source: AnySource, read: int, *, to_the_end: bool) -> InputError:
        """Return the error of an input that is refused, with the evidence.

        Args:
            source: all that is read.
            read, to_the_end: as in ``refuses``.
        """
        first = self.example
        assert first is not None
        of_dna = self.alphabet is PROTEIN
        if read == 1:
            found = f"the only record with a sequence is {'DNA or RNA' if of_dna else 'a protein'}"
        else:
            which = "" if to_the_end else "first "
            kind = "DNA or RNA" if of_dna else "proteins"
            found = f"{self.records:,} of the {which}{read:,} records with a sequence are {kind}"
        where = "" if first.source.path is None else f"{first.place}: "
        if len(source.parts) > 1:
            where = f"{first.source.shown}, {where}"
        return InputError(
            f"{source.shown}: {found}: A, C, G, T, U and N are {self.bases / self.letters:.1%} of "
            f"{'its' if read == 1 else 'their'} letters. The model is for "
            f"{'proteins' if of_dna else 'DNA'}. For example, {where}{first.record} {first.what}. "
            + (
                "Give a model of DNA (model dnabert_s), or translate the records; to embed their "
                "letters as amino acids all the same, set molecule to protein."
                if of_dna
                else "Give a protein model (model esm2_t33_650M_UR50D); if it is DNA all the same, "
                "set molecule to dna."
            ),
            path=first.source.path,
            line=first.line if first.source.path is not None and first.word == "line" else None,
            record=first.number,
        )
