"""Random sequences for a validation: sets by length, the same on every machine."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.model_specs import Family

SEED = 0

#: Default number of sequences in each set.
SEQUENCES_PER_SET = 32

#: Shortest and longest sequence of each set, in tokens; None: the model's limit.
RANGES: dict[str, tuple[int, int | None]] = {
    "short": (1, 49),
    "medium": (50, 200),
    "long": (201, 500),
    "very_long": (501, None),
    "mixed": (1, None),
}

#: Frequency of each letter in percent. Amino acids: ExPASy's "UniProtKB/Swiss-Prot protein
#: knowledgebase release statistics", section "Amino acid composition", whose second decimals
#: change from release to release. DNA: all bases are equally frequent. Ambiguous and rare letters
#: are included, since weights may overflow only for them.
FREQUENCIES: dict[str, dict[str, float]] = {
    "protein": {
        **{"A": 8.25, "Q": 3.93, "L": 9.65, "S": 6.64, "R": 5.53, "E": 6.72, "K": 5.80, "T": 5.35},
        **{"N": 4.06, "G": 7.07, "M": 2.41, "W": 1.10, "D": 5.46, "H": 2.27, "F": 3.86, "Y": 2.92},
        **{"C": 1.38, "I": 5.91, "P": 4.74, "V": 6.86},
        **dict.fromkeys("XBZUO", 0.1),
    },
    "dna": {**dict.fromkeys("ACGT", 25.0), "N": 0.1},
}


@dataclass(frozen=True)
class SequenceSet:
    """Sequences of one range of lengths."""

    name: str
    sequences: tuple[str, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Letters of each sequence."""
        return tuple(map(len, self.sequences))


def make_sets(family: Family, count: int, seed: int = SEED) -> list[SequenceSet]:
    """Draw ``count`` sequences for each range, in random order, including both ends of the range.

    Args:
        family: the model's family, for the alphabet and the range of lengths.
        count: at least 2.
        seed: the same seed gives the same sequences.
    """
    generator = np.random.default_rng(seed)
    frequencies = FREQUENCIES[family.alphabet.name]
    letters = np.array(list(frequencies))
    shares = np.array(list(frequencies.values()))
    sets = []
    for name, (shortest, longest) in RANGES.items():
        limits = letters_of(shortest, family), letters_of(longest, family)
        lengths = generator.permutation(spread_lengths(*limits, count))
        drawn = (generator.choice(letters, n, p=shares / shares.sum()) for n in lengths)
        sets.append(SequenceSet(name, tuple("".join(sequence) for sequence in drawn)))
    return sets


def letters_of(tokens: int | None, family: Family) -> int:
    """Return the approximate number of letters in ``tokens`` tokens; None: the model's limit."""
    return family.max_residues if tokens is None else tokens * family.letters_per_token


def spread_lengths(shortest: int, longest: int, count: int) -> NDArray[np.int64]:
    """Return ``count`` lengths from ``shortest`` to ``longest``, evenly spaced on a log scale."""
    assert count >= 2, count
    return np.geomspace(shortest, longest, count).round().astype(np.int64)
