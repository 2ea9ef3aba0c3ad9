"""Random sequences with the lengths of proteins."""

import math
import random
from collections.abc import Iterator

from common.alphabet import DNA, SPECIAL_TOKENS, Alphabet

#: Parameters of the lognormal distribution of lengths: the median, sigma, and the shortest length
#: in residues. The sequence of an average token then has 487 residues.
MEDIAN_LENGTH, LENGTH_SIGMA, SHORTEST = 290, 0.64, 30

#: Number of random letters of which sequences are pieces.
POOL_LETTERS = 1_000_000


def random_lengths(longest: int, seed: int = 0) -> Iterator[int]:
    """Yield lengths in letters, without end."""
    draw = random.Random(seed)  # noqa: S311
    while True:
        length = draw.lognormvariate(math.log(MEDIAN_LENGTH), LENGTH_SIGMA)
        yield int(min(max(length, SHORTEST), longest))


def segment_lengths(tokens: int, longest: int) -> list[int]:
    """Return lengths of segments, at most ``longest``, that fill ``tokens`` exactly."""
    lengths: list[int] = []
    shortest = SHORTEST + SPECIAL_TOKENS
    for letters in random_lengths(longest - SPECIAL_TOKENS):
        length = letters + SPECIAL_TOKENS
        if tokens <= longest:
            break
        # The rest must be enough for one more segment.
        lengths.append(min(length, tokens - shortest))
        tokens -= lengths[-1]
    return [*lengths, tokens]


def random_sequences(alphabet: Alphabet, longest: int, seed: int = 0) -> Iterator[str]:
    """Yield sequences, without end."""
    draw = random.Random(seed)  # noqa: S311
    # Codes for several bases would be tokens of their own, where DNA has five bases in a token.
    letters = "ACGT" if alphabet is DNA else "".join(sorted(alphabet.letters))
    pool = "".join(draw.choices(letters, k=POOL_LETTERS))
    for length in random_lengths(longest, seed):
        start = draw.randrange(POOL_LETTERS - length)
        yield pool[start : start + length]
