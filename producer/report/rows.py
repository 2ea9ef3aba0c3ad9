"""What the rows say: lengths and precisions of all, and the points of a map."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.origins import Origins
from common.embeddings.table import PRECISION_NAMES
from common.rungs import PRECISION_CODES
from producer.report.contents import Colour, Histogram
from producer.report.metadata import categories
from producer.report.projection import Vectors

#: The most points of a map. Of more rows, a sample is drawn, the same each time.
MOST_POINTS = 100_000

#: Characters of a header that a point shows.
HEADER_SHOWN = 120

#: The most bars of a histogram.
BARS = 60


@dataclass
class Collected:
    """What is kept of rows that pass by; memory holds no vectors."""

    lengths: Counter[int] = field(default_factory=Counter)
    precisions: Counter[int] = field(default_factory=Counter)
    vectors: Vectors | None = None  # of the points
    ids: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    rows: list[Array] = field(default_factory=list)
    point_lengths: list[Array] = field(default_factory=list)
    point_precisions: list[Array] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.precisions.total()

    @property
    def without_numbers(self) -> int:
        return self.precisions[PRECISION_CODES["none"]]

    def add(self, part: Embeddings, chosen: Array, pooled: str | None) -> None:
        """Add rows; of those that are chosen, the vectors too, if they are finite.

        Args:
            chosen: positions in the part.
            pooled: the name of the vectors; None: there are none.
        """
        for counter, values in ((self.lengths, part.lengths), (self.precisions, part.precision)):
            found, counts = np.unique(values, return_counts=True)
            counter.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        if pooled is None:
            return
        vectors = part.pooled[pooled][chosen]
        if vectors.ndim == 3:
            vectors = vectors[:, -1]
        finite = np.isfinite(vectors).all(axis=1)
        chosen, vectors = chosen[finite], vectors[finite]
        self.vectors = self.vectors or Vectors(vectors.shape[1])
        self.vectors.append(vectors)
        self.ids += [part.ids[k] for k in chosen]
        self.headers += [cut(part.headers[k]) for k in chosen]
        self.rows.append(part.rows[chosen])
        self.point_lengths.append(part.lengths[chosen])
        self.point_precisions.append(part.precision[chosen])


def collect(parts: Iterable[Embeddings], records: int, pooled: str | None) -> Collected:
    """Return what a report keeps of rows.

    Args:
        parts: the rows, in blocks.
        records: about how many there are, of which the points are sampled.
        pooled: the name of the vectors of the map; None: there are none.
    """
    found, position = Collected(), 0
    sample = sample_of(records)
    for part in parts:
        end = position + len(part)
        if sample is None:
            chosen = np.arange(len(part))
        else:
            first, last = np.searchsorted(sample, [position, end])
            chosen = sample[first:last] - position
        found.add(part, chosen, pooled)
        position = end
    return found


def sample_of(records: int) -> Array | None:
    """Return the positions of the rows that become points, in order; None: all do."""
    if records <= MOST_POINTS:
        return None
    drawn = np.random.default_rng(0).choice(records, MOST_POINTS, replace=False, shuffle=False)
    return np.sort(drawn)


def own_colours(found: Collected, origins: Origins | None) -> list[Colour]:
    """Return what every file knows to colour points by: length, precision, source."""
    lengths, rows = np.concatenate(found.point_lengths), np.concatenate(found.rows)
    codes = np.concatenate(found.point_precisions).tolist()
    colours = [
        Colour("length", lengths.astype(np.float32)),
        categories("precision", [PRECISION_NAMES[code] for code in codes]),
    ]
    if origins is not None:
        colours.append(categories("source", origins.names_of(rows)))
    return colours


def histogram_of(counts: Counter[int], bars: int = BARS) -> Histogram | None:
    """Return a histogram of whole numbers, given how often each occurs; None without any."""
    if not counts:
        return None
    values = np.array(sorted(counts))
    weights = np.array([counts[value] for value in values.tolist()])
    first, last = int(values[0]), int(values[-1])
    width = max(1, nice_width((last - first + 1) / bars))
    start = first // width * width
    edges = np.arange(start, last + width + 1, width)
    places = (values - start) // width
    return Histogram(edges, np.bincount(places, weights, len(edges) - 1).astype(np.int64))


def nice_width(least: float) -> int:
    """Return the next of 1, 2, 5, 10, 20, 50 and so on."""
    power = 10 ** int(np.floor(np.log10(max(least, 1))))
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= least)


def cut(text: str, most: int = HEADER_SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def precision_counts(found: Collected) -> tuple[tuple[str, int], ...]:
    """Return the number of rows by precision, the lowest first; ``none`` are without vectors."""
    return tuple(
        (name, found.precisions[code])
        for name, code in PRECISION_CODES.items()
        if found.precisions[code]
    )
