"""The checks of one record, and the counts of what they found."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from common.alphabet import DNA, PROTEIN, Alphabet
from common.errors import InputError
from common.job.cleaning import GAP_SIGNS, clean, place_of, unknown_letters
from producer.input import complaints
from producer.input.advice import stands_for_a_letter
from producer.input.blocks import Block
from producer.input.columns import USUAL_COLUMNS, Columns
from producer.input.molecule import EARLY_RECORDS, NEARLY_ALL, Counted, OtherMolecule
from producer.input.problems import LISTED, Kind, Problem, Problems, nothing_left
from producer.input.sources import AnySource

if TYPE_CHECKING:  # as in common.job.cleaning
    from common.job.output_form import Empty, Gaps, Long, Molecule, Short, Unknown

#: Counts that add up over the parts of an input.
COUNTS = (
    *("read", "long_records", "skipped", "empty", "short", "replaced", "gapped", "stripped", "rna"),
    *("like_dna", "like_dna_of_any_length"),
)


class Findings(NamedTuple):
    """What checks of some records found, which are a part of an input."""

    counts: tuple[int, ...]  # as COUNTS names them
    kinds: Counter[Kind]  # of bad records
    first: list[Problem]
    other: Counted


class RecordChecks:
    """What records of an input may be, and how many were something else.

    Counted are the records that are longer than ``max_residues`` (``long_records``), that were
    ``skipped`` for their letters or because they were ``empty`` or ``short``, that had letters
    ``replaced``, that are ``gapped`` or had their gaps ``stripped``, that were ``rna``, and that
    surely are DNA although proteins are expected (``like_dna``).
    """

    def __init__(
        self,
        source: AnySource,
        *,
        alphabet: Alphabet,
        unknown: "Unknown",
        long: "Long",
        max_residues: int,
        gaps: "Gaps" = "keep",
        empty: "Empty" = "error",
        columns: Columns = USUAL_COLUMNS,
        min_length: int = 1,
        short: "Short" = "error",
        molecule: "Molecule" = "auto",
    ) -> None:
        self.source = source
        self.alphabet = alphabet
        self.unknown = unknown
        self.long = long
        self.max_residues = max_residues
        self.gaps = gaps
        self.on_empty = empty
        self.columns = columns
        self.min_length = min_length
        self.on_short = short
        self.given_molecule = molecule
        self.read = self.long_records = self.skipped = self.empty = self.short = self.replaced = 0
        self.gapped = self.stripped = self.rna = self.like_dna = 0
        self.like_dna_of_any_length = 0
        #: The bad records so far.
        self.problems = Problems()
        self._other = OtherMolecule(alphabet)
        self._part = source.parts[0]  # the one that is being read
        self._before = 0  # records of the sources before it

    @property
    def molecule(self) -> Literal["protein", "dna", "rna"]:
        """What the records are read as: what was given, or what the model is for."""
        if self.given_molecule != "auto":
            return self.given_molecule
        if self.alphabet is PROTEIN:
            return "protein"
        return "rna" if 2 * self.rna > self.read else "dna"

    def other_molecule(self, *, to_the_end: bool) -> InputError | None:
        """Return the error of an input that is not of the model's molecule; None if it is.

        Args:
            to_the_end: whether everything was read; before, it is decided of many records only.
        """
        found = self.read - self.empty - self.problems.kinds["empty"]
        if self.given_molecule != "auto" or not self._other.refuses(found, to_the_end=to_the_end):
            return None
        return self._other.error(self.source, found, to_the_end=to_the_end)

    def findings(self) -> Findings:
        """Return everything that was found so far."""
        counts = tuple(getattr(self, name) for name in COUNTS)
        problems = self.problems
        return Findings(counts, problems.kinds, problems.first, self._other.counted())

    def add_findings(self, found: Findings, lines: int) -> None:
        """Add what was found in the next records of the source that is being read.

        Args:
            lines: of the source before those that the findings' lines are counted from.
        """

        def moved(problem: Problem) -> Problem:
            return problem.moved(self._part, self.read - self._before, lines)

        example = found.other.example
        self.problems.add_all(found.kinds, map(moved, found.first[:LISTED]))
        self._other.add_counted(found.other._replace(example=example and moved(example)))
        for name, count in zip(COUNTS, found.counts, strict=True):
            setattr(self, name, getattr(self, name) + count)

    def may_decide(self, found: Findings) -> bool:
        """Return whether the next records may show that the input is of the other molecule.

        Then they have to be looked at in the order of the input.
        """
        if self.given_molecule != "auto":
            return False
        if self.alphabet is PROTEIN and self.read < EARLY_RECORDS:
            return True
        read = self.read - self.empty - self.problems.kinds["empty"]
        records = found.other.records
        return bool(records) and self._other.records + records >= NEARLY_ALL * read

    def nothing_left(self) -> InputError | None:
        """Return the error of an input of which all records were skipped; None if some were not."""
        if self.skipped + self.empty + self.short < self.read:
            return None
        return nothing_left(self.source, self.empty, self.skipped, self.short)

    def _problem(self, header: str, row: int, block: Block) -> Callable[..., Problem]:
        """Return a function that makes a problem of the line, and of what is wrong there."""
        number = row - self._before + 1
        return partial(Problem, self._part, number, header, word=block.word)

    def _add_too_long(self, header: str, row: int, letters: int, line: int, block: Block) -> None:
        complaint = complaints.too_long(letters, self.max_residues, self.alphabet)
        self.problems.add(self._problem(header, row, block)(line, *complaint))

    def _cleaned(self, header: str, text: str, line: int, block: Block) -> str | Problem | None:
        """Return a record's letters; None if it is to be skipped."""
        problem = self._problem(header, self.read, block)
        first = line + block.header_lines  # of the letters
        if "\0" in header:
            return problem(line, *complaints.NUL)
        residues, gapped, rna = clean(text, self.alphabet, self.gaps)
        if not residues:
            if self.on_empty == "skip":
                self.empty += 1
                return None
            return problem(line, *complaints.EMPTY)
        if self.alphabet is DNA and self.given_molecule == "auto" and self._other.belongs(residues):
            self._other.add(residues, lambda what: problem(line, what, "", "letters"))
        if gapped and self.gaps == "error":
            number, position, sign = place_of(set(GAP_SIGNS), text)
            return problem(first + number, *complaints.gap(sign, position, self.alphabet))
        unknown = unknown_letters(residues, self.alphabet)
        if unknown:
            if self.unknown == "skip":
                self.skipped += 1
                return None
            refused = {s for s in unknown if self.unknown == "error" or not stands_for_a_letter(s)}
            if refused:
                number, position, sign = place_of(refused, text)
                complaint = complaints.letter(sign, position, residues, self.alphabet)
                return problem(first + number, *complaint)
        if len(residues) < self.min_length:
            if self.on_short == "skip":
                self.short += 1
                return None
            limit = self.min_length
            return problem(line, *complaints.too_short(len(residues), limit, self.alphabet))
        if unknown:
            self.replaced += 1
            known, x = self.alphabet.letters, self.alphabet.unknown
            residues = "".join([letter if letter in known else x for letter in residues])
        self.rna += rna
        self.stripped += gapped and self.gaps == "strip"
        self.gapped += gapped and self.gaps == "keep" and self.alphabet is PROTEIN
        return residues
