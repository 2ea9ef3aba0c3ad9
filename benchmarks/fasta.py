"""FASTA of random proteins with realistic lengths, of any size, written as fast as a disk takes it.

No import of PyTorch: the producer is measured without it.
"""

from collections.abc import Iterator
from itertools import accumulate, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LETTERS = b"LAGVSERTIDPKQNFYMHWC"

#: All words of four letters, each as one number: they are drawn at once.
WORD = 4
WORDS = np.array(list(product(LETTERS, repeat=WORD)), np.uint8).view(np.uint32).ravel()

#: The lognormal distribution of lengths, whose median is 290 residues, and the shortest one.
LOG_MEAN, LOG_DEVIATION, SHORTEST = 5.67, 0.64, 30

#: Residues of a line.
LINE = 60

#: Records that are made and written at once.
BLOCK = 4_000

#: Sequences of earlier records that are kept, for copies of them.
KEPT = 20_000


def write_proteins(path: Path, size: int, identical: float = 0.0, seed: int = 0) -> int:
    """Write proteins until they have ``size`` bytes or more; return the number of records.

    Args:
        identical: the share of records that have the sequence of an earlier one.
    """
    written = records = 0
    with path.open("wb") as file:
        for block in protein_blocks(identical, seed):
            before = accumulate(map(len, block), initial=written)
            wanted = [record for record, at in zip(block, before, strict=False) if at < size]
            written += file.write(b"".join(wanted))
            records += len(wanted)
            if written >= size:
                break
    return records


def protein_blocks(identical: float = 0.0, seed: int = 0) -> Iterator[list[bytes]]:
    """Yield records as FASTA, in blocks, without end; the same ones for the same seed."""
    draw = np.random.default_rng(seed)
    kept: list[bytes] = []
    first = 0
    while True:
        bodies = new_bodies(draw, BLOCK)
        if identical:
            keep(draw, kept, copy_some(draw, bodies, kept, identical))
        yield [b">P%08d protein %d\n%b" % (n, n, body) for n, body in enumerate(bodies, first)]
        first += len(bodies)


def protein_lengths(draw: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return the residues of each of ``count`` proteins."""
    lengths = draw.lognormal(LOG_MEAN, LOG_DEVIATION, count)
    return np.maximum(lengths, SHORTEST).astype(np.int64)


def new_bodies(draw: np.random.Generator, count: int) -> list[bytes]:
    """Return sequences in lines, each of letters of its own."""
    lengths = protein_lengths(draw, count)
    lines = -(-lengths // LINE)
    ends = np.cumsum(lines) * (LINE + 1)
    starts = ends - lines * (LINE + 1)
    text = np.empty((int(ends[-1]) // (LINE + 1), LINE + 1), np.uint8)
    words = draw.integers(0, len(WORDS), len(text) * LINE // WORD, np.uint32)
    text[:, :LINE] = WORDS.take(words).view(np.uint8).reshape(-1, LINE)
    text[:, LINE] = ord("\n")
    whole = text.tobytes()
    # The last line of each is cut.
    stops = (starts + lengths + lines - 1).tolist()
    return [whole[start:stop] + b"\n" for start, stop in zip(starts.tolist(), stops, strict=True)]


def copy_some(
    draw: np.random.Generator, bodies: list[bytes], kept: list[bytes], identical: float
) -> list[bytes]:
    """Replace a share of sequences by earlier ones, kept or before them; return the others."""
    is_copy = draw.random(len(bodies)) < identical
    is_copy[0] &= bool(kept)
    new, places = np.flatnonzero(~is_copy), np.flatnonzero(is_copy)
    sequences = [*kept, *(bodies[place] for place in new.tolist())]
    earlier = len(kept) + np.searchsorted(new, places)
    for place, which in zip(places.tolist(), draw.integers(0, earlier).tolist(), strict=True):
        bodies[place] = sequences[which]
    return sequences[len(kept) :]


def keep(draw: np.random.Generator, kept: list[bytes], bodies: list[bytes]) -> None:
    """Keep sequences, in the place of others once there are many."""
    room = KEPT - len(kept)
    kept += bodies[:room]
    rest = bodies[room:]
    for place, body in zip(draw.integers(0, KEPT, len(rest)).tolist(), rest, strict=True):
        kept[place] = body
