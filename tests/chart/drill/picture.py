"""The picture of a drill: pods, demand and batches that are done, over time."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

WANTED, READY, DEMAND, DONE = "#d95f02", "#1b9e77", "#7570b3", "#444444"

#: Colours of a pod's states: a ready one is idle or busy.
STATES = {
    "starts, or is not ready": "#dddddd",
    "ready, without a batch": "#a6dba0",
    "ready, with a batch": "#1b7837",
    "ends": "#f4a582",
}

#: Seconds without an answer from which on the demand is shown as unknown.
GAP = 1.5

#: Columns of the list of what happened.
COLUMNS = 2

#: Pixels of an inch; colours that are left in the file.
DPI, COLOURS = 100, 64


def draw(document: Mapping[str, Any], picture: Path) -> None:
    """Draw what ``Records.document`` gives."""
    moments = document["moments"]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(
            5,
            1,
            figsize=(10.5, 8.6),
            sharex=True,
            layout="constrained",
            gridspec_kw={"height_ratios": [1.2, 1.5, 1.1, 1.1, 0.75]},
        )
        draw_replicas(axes[0], moments)
        draw_pods(axes[1], moments)
        draw_demand(axes[2], moments)
        draw_done(axes[3], moments)
        draw_events(axes[:-1], axes[-1], document["events"])
        axes[-2].tick_params(labelbottom=True)
        axes[-2].set_xlabel(
            f"seconds; the autoscaler's clock ran {document['speed']:.0f} times as fast"
        )
        axes[-1].set_xlim(0, moments[-1]["at"])
        figure.savefig(picture, dpi=DPI)
        plt.close(figure)
    with Image.open(picture) as image:
        image.convert("RGB").quantize(COLOURS).save(picture, optimize=True)


def draw_replicas(axes: Axes, moments: Sequence[Mapping[str, Any]]) -> None:
    at = [moment["at"] for moment in moments]
    ready = [moment["ready"] for moment in moments]
    axes.fill_between(at, ready, step="post", color=READY, alpha=0.35, label="ready")
    wanted = [moment["wanted"] for moment in moments]
    axes.step(at, wanted, where="post", color=WANTED, linewidth=1.8, label="wanted")
    axes.set_ylabel("workers")
    axes.set_ylim(0, max(wanted) + 0.6)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right", frameon=False, ncols=2)


def draw_pods(axes: Axes, moments: Sequence[Mapping[str, Any]]) -> None:
    """Draw a lane for each pod, with what it did in every second."""
    names = sorted({pod for moment in moments for pod in moment["states"]}, key=number_of)
    busy: Sequence[str] = ()
    for moment, following in zip(moments, [*moments[1:], moments[-1]], strict=True):
        # While Redis is away, nobody can say who has a batch: as before.
        busy = busy if moment["done"] is None else moment["busy"]
        for pod, state in moment["states"].items():
            colour = STATES[shown(state, pod in busy)]
            span = (moment["at"], following["at"] - moment["at"])
            axes.broken_barh([span], (names.index(pod) - 0.38, 0.76), facecolors=colour)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_ylabel("pods")
    handles = [Patch(color=colour, label=state) for state, colour in STATES.items()]
    axes.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.99),
        frameon=False,
        fontsize=8,
        ncols=len(STATES),
    )


def shown(state: str, busy: bool) -> str:
    """Return which of ``STATES`` a pod is shown in."""
    if state == "ready":
        return "ready, with a batch" if busy else "ready, without a batch"
    return "ends" if state == "ending" else "starts, or is not ready"


def number_of(pod: str) -> int:
    return int(pod.rpartition("-")[2])


def draw_demand(axes: Axes, moments: Sequence[Mapping[str, Any]]) -> None:
    at = [moment["at"] for moment in moments]
    demand = [moment["demand"] for moment in moments]
    known = [float("nan") if value is None else value for value in demand]
    axes.step(at, known, where="post", color=DEMAND, linewidth=1.8)
    top = max(value for value in demand if value is not None) * 1.08
    first = True
    for one, two in pairwise(moments):
        if one["demand"] is None or two["at"] - one["at"] > GAP:
            label = "not known" if first else None
            axes.axvspan(one["at"], two["at"], color="#cccccc", alpha=0.6, lw=0, label=label)
            first = False
    axes.set_ylim(0, top)
    axes.set_ylabel("demand:\nbatches left")
    if not first:
        axes.legend(loc="upper right", frameon=False)


def draw_done(axes: Axes, moments: Sequence[Mapping[str, Any]]) -> None:
    known = [(moment["at"], moment["done"]) for moment in moments if moment["done"] is not None]
    axes.plot(*zip(*known, strict=True), color=DONE, linewidth=1.8)
    axes.set_ylim(0, None)
    axes.set_ylabel("batches done")


def draw_events(parts: Sequence[Axes], below: Axes, events: Sequence[tuple[float, str]]) -> None:
    """Mark what happened by numbers in all parts, and say what they are below."""
    for number, (at, _) in enumerate(events, start=1):
        for part in parts:
            part.axvline(at, color="#888888", linewidth=0.7, linestyle=":", zorder=0)
        parts[0].annotate(
            str(number),
            # Of two that are close, the second one higher.
            (at, 1.06 if number % 2 else 1.19),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=8,
            color="white",
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "#555555", "edgecolor": "none"},
        )
    below.axis("off")
    rows = -(-len(events) // COLUMNS)
    for number, (at, what) in enumerate(events, start=1):
        column, row = divmod(number - 1, rows)
        place = (column / COLUMNS, 1 - (row + 1) / (rows + 1))
        text = f"{number}   {at:.0f} s: {what}"
        below.text(*place, text, transform=below.transAxes, fontsize=8.5, va="center")
