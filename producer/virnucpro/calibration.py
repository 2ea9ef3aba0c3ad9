"""The calibration of scores: whether a score is the probability of a virus.

A reliability diagram (DeGroot and Fienberg 1983) has the mean score of each of ten bins against the
share of viruses among its frames. Both classes weigh alike, as in training: a score is the
probability of a virus where viruses and others are equally frequent.
"""

from collections.abc import Sequence

import numpy as np

from common.embeddings.arrays import Array
from common.wire.messages import Document
from producer.virnucpro.split import class_weights

#: Number of bins, of equal width.
BINS = 10

#: The picture's size, the left, top and side of the diagram's square, the top and height of the
#: histogram below it, and where vertical axes have their labels, in pixels.
WIDTH, HEIGHT = 540, 700
LEFT, TOP, SIDE = 84, 84, 420
BARS_TOP, BARS_HEIGHT = 556, 84
AXIS_LABEL = 36

#: Numbers on the axes.
TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)

#: Colours on a light ground, and what replaces them on a dark one.
STYLE = """
text { fill: #1c2733; font: 13px system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
.ground { fill: #ffffff; }
.title { font-size: 17px; font-weight: 600; }
.quiet { fill: #5d6b7a; }
.small { font-size: 11px; }
.line { stroke: #dfe4ea; }
.axis { stroke: #5d6b7a; }
.ideal { stroke: #5d6b7a; stroke-dasharray: 5 4; }
.curve { stroke: #1c2733; stroke-width: 2; fill: none; }
.point { fill: #1c2733; stroke: #ffffff; stroke-width: 1.5; }
.others { fill: #2166ac; }
.virus { fill: #e08214; }
@media (prefers-color-scheme: dark) {
  text { fill: #e3e8ee; }
  .ground { fill: #1a2129; }
  .quiet { fill: #97a4b2; }
  .line { stroke: #2e3843; }
  .axis, .ideal { stroke: #97a4b2; }
  .curve { stroke: #e3e8ee; }
  .point { fill: #e3e8ee; stroke: #1a2129; }
  .others { fill: #6cb0ee; }
  .virus { fill: #f5a742; }
}
"""


class ReliabilityBin(Document):
    """The frames whose virus score is from one edge up to the next; the last bin has 1 too."""

    low: float
    high: float
    others: int  # frames
    virus: int
    weight: float  # share of all frames, with both classes weighted alike
    mean_score: float | None  # None: no frame
    virus_share: float | None


def reliability(scores: Array, labels: Array) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram.

    Args:
        scores: of a virus, between 0 and 1, ``[n]``.
        labels: 1 for a virus, 0 for others, ``[n]``; both occur.
    """
    edges = np.arange(BINS + 1) / BINS
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    weights = np.array(class_weights(labels))[labels] / len(labels)
    others, virus = (np.bincount(place[labels == k], minlength=BINS) for k in (0, 1))
    total = np.bincount(place, weights, BINS)
    score = np.bincount(place, weights * scores, BINS)
    of_virus = np.bincount(place, weights * labels, BINS)
    return tuple(
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            others=int(others[k]),
            virus=int(virus[k]),
            weight=float(total[k]),
            mean_score=float(score[k] / total[k]) if total[k] else None,
            virus_share=float(of_virus[k] / total[k]) if total[k] else None,
        )
        for k in range(BINS)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean distance of bins' mean scores from their shares of viruses.

    It is weighted by the bins' frames (Naeini, Cooper and Hauskrecht 2015); 0 is perfect.
    """
    return sum(
        each.weight * abs(each.mean_score - each.virus_share)
        for each in bins
        if each.mean_score is not None and each.virus_share is not None
    )


def calibration_svg(bins: Sequence[ReliabilityBin], brier: float) -> str:
    """Return a reliability diagram as an SVG image, with the frames of each bin below it.

    Its colours follow the light or dark scheme of what shows it.

    Args:
        bins: of ``reliability``.
        brier: the Brier score, for the text above.
    """
    error = expected_calibration_error(bins)
    frames = sum(each.others + each.virus for each in bins)
    words = f"{frames:,} held-out frames, both classes weighted alike"
    figures = f"Brier score {brier:.4f}, expected calibration error {error:.4f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="Calibration. {words}. {figures}.">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        text(20, 28, "Calibration", "title"),
        text(20, 48, words, "quiet"),
        text(20, 66, figures, "quiet"),
        *axes(),
        *curve(bins),
        *histogram(bins),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def text(x: float, y: float, words: str, name: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{name}" text-anchor="{anchor}">{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{name}"/>'


def axes() -> list[str]:
    """Return the axes of the diagram, with a grid and the diagonal of perfect calibration."""
    right, bottom = LEFT + SIDE, TOP + SIDE
    parts = []
    for tick in TICKS:
        x, y = LEFT + SIDE * tick, bottom - SIDE * tick
        parts += [line(x, TOP, x, bottom, "line"), line(LEFT, y, right, y, "line")]
        parts += [text(x, bottom + 18, f"{tick:g}", "quiet", "middle")]
        parts += [text(LEFT - 8, y + 4.5, f"{tick:g}", "quiet", "end")]
    return [
        *parts,
        line(LEFT, bottom, right, bottom, "axis"),
        line(LEFT, TOP, LEFT, bottom, "axis"),
        line(LEFT, bottom, right, TOP, "ideal"),
        upright("Share of viruses", TOP + SIDE / 2),
    ]


def upright(words: str, middle: float) -> str:
    """Return the label of a vertical axis, which reads upwards."""
    label = text(AXIS_LABEL, middle, words, anchor="middle")
    return f'<g transform="rotate(-90 {AXIS_LABEL} {middle:g})">{label}</g>'


def curve(bins: Sequence[ReliabilityBin]) -> list[str]:
    """Return the points of the bins that have frames, and the line through them."""
    points = [
        (LEFT + SIDE * each.mean_score, TOP + SIDE * (1 - each.virus_share), each)
        for each in bins
        if each.mean_score is not None and each.virus_share is not None
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    return [
        f'<polyline class="curve" points="{path}"/>',
        *(
            f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>Mean score '
            f"{each.mean_score:.3f}, share of viruses {each.virus_share:.3f}</title></circle>"
            for x, y, each in points
        ),
    ]


def histogram(bins: Sequence[ReliabilityBin]) -> list[str]:
    """Return the numbers of frames of each bin as bars, viruses above others."""
    bottom, width = BARS_TOP + BARS_HEIGHT, SIDE / len(bins)
    most = max(each.others + each.virus for each in bins)
    parts = []
    for place, each in enumerate(bins):
        left, top = LEFT + width * place, float(bottom)
        for name, count in (("others", each.others), ("virus", each.virus)):
            height = BARS_HEIGHT * count / most
            top -= height
            parts.append(
                f'<rect class="{name}" x="{left + 2:g}" y="{top:.1f}" width="{width - 4:g}" '
                f'height="{height:.1f}"><title>{count:,} {name}</title></rect>'
            )
        total = short(each.others + each.virus)
        parts.append(text(left + width / 2, top - 5, total, "quiet small", "middle"))
    return [
        *parts,
        *(text(LEFT + SIDE * tick, bottom + 18, f"{tick:g}", "quiet", "middle") for tick in TICKS),
        line(LEFT, bottom, LEFT + SIDE, bottom, "axis"),
        upright("Frames", BARS_TOP + BARS_HEIGHT / 2),
        text(LEFT + SIDE / 2, bottom + 42, "Virus score", anchor="middle"),
        *legend(bottom + 33),
    ]


def legend(top: float) -> list[str]:
    """Return the names of the colours, at the right."""
    parts = []
    for x, name in ((LEFT + SIDE - 114, "others"), (LEFT + SIDE - 46, "virus")):
        parts.append(f'<rect class="{name}" x="{x}" y="{top:g}" width="10" height="10" rx="2"/>')
        parts.append(text(x + 15, top + 9, name, "quiet"))
    return parts


def short(count: int) -> str:
    """Return a count in at most six characters, such as 12,345, 123k or 1.2M."""
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"
