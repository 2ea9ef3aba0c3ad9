"""The letters that a FASTA record may contain, and ESM-2's tokens for them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

#: ESM-2's vocabulary; a token's id is its place in this tuple. Source:
#: ``Alphabet.from_architecture("ESM-1b")`` of fair-esm 2.0.0, which ESM-2 shares.
ESM2_TOKENS: tuple[str, ...] = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)

#: Number of tokens of a segment besides its letters: ``<cls>`` and ``<eos>``, or ``[CLS]`` and
#: ``[SEP]``.
SPECIAL_TOKENS = 2


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """The letters of one kind of sequence."""

    name: Literal["protein", "dna"]
    letters: frozenset[str]  # upper case
    unknown: str  # the letter that ``--unknown x`` puts in place of any other
    letter: str  # the word for one letter, in messages
    plural: str

    @cached_property
    def encoded(self) -> bytes:
        """The letters, for ``bytes.translate``."""
        return "".join(sorted(self.letters)).encode()


PROTEIN = Alphabet(
    name="protein",
    # Amino acids, ambiguity codes and the two gap signs.
    letters=frozenset(token for token in ESM2_TOKENS if len(token) == 1),
    unknown="X",
    letter="amino acid",
    plural="residues",
)

DNA = Alphabet(
    name="dna",
    letters=frozenset("ACGTRYSWKMBDHVN"),  # bases, and IUPAC's codes for several
    unknown="N",
    letter="base",
    plural="bases",
)

ALPHABETS = {alphabet.name: alphabet for alphabet in (PROTEIN, DNA)}
