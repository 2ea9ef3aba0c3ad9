"""A picture of the share of linear speed that one job alone has, by the number of GPUs."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

#: What ``docs/scaling.md`` had for jobs that were staged by one process at 100 MB/s, then computed,
#: and then fetched at 666 MB/s: 650M, mean vectors, S3.
BEFORE = {1: 0.988, 4: 0.953, 16: 0.834, 64: 0.557, 256: 0.239, 1024: 0.073}

#: Colours that can be told apart by the colour-blind, dark enough for white.
COLOURS = ("#2f6eb5", "#c8602a", "#4a8f3c")
BEFORE_COLOUR, TEXT_COLOUR, GRID_COLOUR = "#8497b0", "#1f2a37", "#d6dce5"

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "scaling",  # the same picture for the same figures
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": TEXT_COLOUR,
    "axes.labelcolor": TEXT_COLOUR,
    "xtick.color": TEXT_COLOUR,
    "ytick.color": TEXT_COLOUR,
    "axes.edgecolor": GRID_COLOUR,
}


def draw_shares(
    now: Mapping[int, Mapping[int, float]], picture: Path, before: Mapping[int, float] = BEFORE
) -> None:
    """Draw the shares on white, which light and dark pages show alike.

    Args:
        now: for jobs of some proteins, the share for each number of GPUs.
    """
    counts = sorted({*before, *(gpus for shares in now.values() for gpus in shares)})
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
        axes.plot(*zip(*before.items(), strict=True), "o--", color=BEFORE_COLOUR, label="before")
        for (proteins, shares), colour in zip(sorted(now.items()), COLOURS, strict=False):
            label = f"now, {proteins:,} proteins"
            axes.plot(*zip(*shares.items(), strict=True), "o-", color=colour, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [f"{gpus:,}" for gpus in counts])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axes.set(xlabel="GPUs", ylabel="of linear speed", ylim=(0, 1.05))
        axes.grid(color=GRID_COLOUR)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(picture, dpi=110, facecolor="white", metadata={"Date": None})
        plt.close(figure)
