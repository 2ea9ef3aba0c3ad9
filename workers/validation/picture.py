"""The picture of a validation: cosine similarity against length."""

import logging
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from common.errors import UserError
from common.model_source import ModelSource
from common.paths import check_replaceable
from workers.validation import PICTURE_SIGNATURE, PROGRAM
from workers.validation.record import Compared, Validation
from workers.validation.statistics import EXPECTED, FLOOR

# Matplotlib logs details about fonts at level INFO.
logging.getLogger("matplotlib").setLevel(logging.WARNING)

#: The Okabe-Ito palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = "osD^v"
RED, GREY, DARK = "#B3261E", "#777777", "#222222"

#: Smallest distance of a cosine from 1 that is drawn: below it there is only FP32's rounding.
CLOSEST = 1e-9

#: Distance from 1 at the end of the axis, a little beyond a cosine of -1.
FURTHEST = 2.5

#: Characters of a line, and its height in points, in the text above the axes.
LINE_LETTERS, LINE_HEIGHT = 100, 12

#: Distance from 1 at which a sequence without a cosine is drawn: that of orthogonal vectors.
NO_COSINE = 1.0


def save_picture(validation: Validation, path: Path) -> None:
    """Write a PNG of the first comparison, a point for each sequence.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(8, 5.2), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    title = validation.comparisons[0].title
    shown = [each for each in validation.comparisons if each.title == title]
    lengths = {each.name: each.lengths for each in validation.sets}
    for compared, colour, marker in zip(shown, COLOURS, MARKERS, strict=True):
        draw_set(axes, compared, lengths[compared.set], colour, marker)
    draw_missing(axes, shown, lengths)
    scale_axes(axes, validation)
    draw_bounds(axes)
    draw_text(axes, validation, title)
    try:
        check_replaceable(path, PICTURE_SIGNATURE, "--picture")
        figure.savefig(path, format="png", metadata={"Software": PROGRAM})
    except OSError as error:
        raise UserError(
            f"--picture {path} cannot be written ({error}). The validation itself "
            f"{'passed' if validation.passed else 'FAILED'}."
        ) from error


def draw_set(
    axes: Axes, compared: Compared, lengths: tuple[int, ...], colour: str, marker: str
) -> None:
    pairs = zip(lengths, compared.figures.cosines, strict=True)
    points = [(n, max(1 - cosine, CLOSEST)) for n, cosine in pairs if cosine is not None]
    axes.scatter(
        [n for n, _ in points],
        [distance for _, distance in points],
        label=compared.set.replace("_", " "),
        color=colour,
        marker=marker,
        s=24,
        alpha=0.85,
        linewidths=0,
        zorder=3,
    )


def draw_missing(axes: Axes, shown: list[Compared], lengths: dict[str, tuple[int, ...]]) -> None:
    """Draw crosses at the bottom for sequences that are not finite."""
    missing = [
        length
        for compared in shown
        for length, cosine in zip(lengths[compared.set], compared.figures.cosines, strict=True)
        if cosine is None
    ]
    if missing:
        axes.scatter(
            missing,
            [NO_COSINE] * len(missing),
            label=f"NaN or Inf ({len(missing)})",
            color=RED,
            marker="x",
            s=36,
            alpha=0.7,
            zorder=4,
            clip_on=False,
        )


def scale_axes(axes: Axes, validation: Validation) -> None:
    """Scale the axes so that cosines near 1 are apart from each other, with 1 at the top."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    least, most = sorted(axes.get_ylim())
    axes.set_ylim(min(max(most, 0.1), FURTHEST), min(least / 2, 1e-5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda distance, _: nines(distance)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"Length ({validation.unit})")
    axes.set_ylabel("Cosine similarity to FP32")
    axes.grid(color="#E4E4E4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def nines(distance: float) -> str:
    """Return the cosine at a distance from 1 that is a power of ten: 0.99, 0.999 and so on."""
    return f"{1 - distance:.10f}".rstrip("0").rstrip(".")


def draw_bounds(axes: Axes) -> None:
    """Draw the bounds as lines, with their names at the right, where no point hides them."""
    worst = axes.get_ylim()[0]
    axes.axhspan(1 - FLOOR, worst, color=RED, alpha=0.07, linewidth=0)
    for cosine, colour, style, words in (
        (FLOOR, RED, "-", "floor"),
        (EXPECTED, GREY, "--", "expected"),
    ):
        axes.axhline(1 - cosine, color=colour, linestyle=style, linewidth=1.2)
        axes.annotate(
            f"{cosine}\n{words}",
            (1.01, 1 - cosine),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
            fontsize=9,
        )


def draw_text(axes: Axes, validation: Validation, shown: str) -> None:
    name = ModelSource(validation.model).name
    random = "random weights, " if validation.random_weights else ""
    verdict = "PASS" if validation.passed else "FAIL"
    text = fill(f"{random}{shown}. All comparisons: {validation.summary}", LINE_LETTERS)
    axes.set_title(
        f"{name} in {validation.precision.upper()} on {validation.device}: {verdict}",
        loc="left",
        pad=16 + LINE_HEIGHT * len(text.splitlines()),
        color=DARK,
        fontweight="bold",
        fontsize=11,
    )
    axes.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 10),
        textcoords="offset points",
        color=GREY,
        fontsize=9,
    ).set_in_layout(False)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.13), ncols=6, frameon=False, handletextpad=0.2
    )
