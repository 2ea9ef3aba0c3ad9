"""Open reading frames: the stretches between stops."""

from collections.abc import Iterator

import numpy as np

from producer.translation.strands import FRAMES, Strand


def stretches(strand: Strand, start: int, length: int, min_frame: int) -> Iterator[tuple[int, int]]:
    """Yield the first base and the end of each stretch of codons that are no stops.

    A stretch ends at a stop, or at an end of the chunk, as EMBOSS's getorf has it (``-find 0``).
    They come by their frame, then by their place.

    Args:
        start: of the chunk in the strand.
        length: of it.
        min_frame: fewest codons of a stretch.
    """
    for frame in range(FRAMES):
        first = start + frame
        end = first + (length - frame) // FRAMES * FRAMES
        stops = strand.stops[first % FRAMES]
        inside = stops[np.searchsorted(stops, first) : np.searchsorted(stops, end)]
        begins = np.concatenate([[first], inside + FRAMES])
        ends = np.concatenate([inside, [end]])
        for one in np.flatnonzero(ends - begins >= FRAMES * min_frame).tolist():
            yield int(begins[one]), int(ends[one])
