"""A picture of the dashboard, drawn from what Prometheus answers to its queries.

``python -m tests.ops.picture docs/dashboard.png`` makes the run anew.
"""

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from tests.ops.dashboard import Panel, panels
from tests.ops.monitored_run import Prometheus, monitored_run

#: The values of a panel by the texts of their legends.
Lines = Mapping[str, Sequence[tuple[float, float]]]

#: Seconds without a value that interrupt a line.
GAP_SECONDS = 3.0

#: Lines of a panel from which those that are always 0 are left out.
MANY_LINES = 4

#: Characters of a legend.
LEGEND_CHARACTERS = 30

#: Inches of the picture's width and of a unit of the dashboard's height; pixels of an inch; colors
#: that are left in the file.
WIDTH, UNIT, DPI, COLORS = 13.0, 0.235, 92, 64

MARGIN = 0.02

#: Units of the dashboard's height above it, for a line of text.
TOP = 2


def lines_of(panel: Panel, prometheus: Prometheus) -> dict[str, list[tuple[float, float]]]:
    """Return what the queries of a panel give."""
    lines = {
        legend_of(template, json.loads(labels)): scaled(values, panel.unit)
        for query, template in panel.queries
        for labels, values in prometheus.series(query).items()
    }
    some = {name: values for name, values in lines.items() if any(value for _, value in values)}
    return some if some and len(lines) > MANY_LINES else lines


def scaled(values: Sequence[tuple[float, float]], unit: str) -> list[tuple[float, float]]:
    return [(at, value / 2**20 if unit == "bytes" else value) for at, value in values]


def legend_of(template: str, labels: Mapping[str, str]) -> str:
    text = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)
    text = re.sub(r"/\S*/", "", text).strip()  # of a path, the name
    text = re.sub(r"path-([0-9a-f]{6})[0-9a-f]{10}", r"path-\1", text)
    text = re.sub(r"-[0-9a-f]{12}\b", "", text).replace("random:", "").replace("random.", "")
    text = text or "none"
    return text if len(text) <= LEGEND_CHARACTERS else f"{text[: LEGEND_CHARACTERS - 1]}…"


def draw(prometheus: Prometheus, path: Path) -> None:
    """Draw all panels."""
    plt.rcParams.update({"font.size": 7.5, "font.family": "DejaVu Sans", "axes.linewidth": 0.6})
    found = panels()
    height = max(panel.place[1] + panel.place[3] for panel in found) + TOP
    figure = plt.figure(figsize=(WIDTH, height * UNIT), dpi=DPI)
    figure.text(MARGIN, 1 - 1.3 / height, title_of(prometheus), fontsize=8.5, va="bottom")
    row = ""
    for panel in found:
        if panel.row != row:
            row = panel.row
            top = 1 - (panel.place[1] + TOP - 0.1) / height
            figure.text(MARGIN, top, row, fontsize=11, weight="bold", va="bottom")
        lines = lines_of(panel, prometheus)
        if panel.kind == "stat":
            draw_number(axes_of(figure, panel, height, (0.3, 0.7)), panel, lines)
        else:
            draw_lines(axes_of(figure, panel, height, (1.35, 2.6)), panel, lines, prometheus)
    figure.savefig(path)
    plt.close(figure)
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLORS).save(path, optimize=True)


def title_of(prometheus: Prometheus) -> str:
    faults = [f"{text} ({at - prometheus.start:.0f} s)" for text, at in prometheus.faults.items()]
    return f"Two jobs, two workers on CPUs. Dotted lines: {', '.join(faults)}."


def axes_of(figure: Figure, panel: Panel, height: int, margins: tuple[float, float]) -> Axes:
    """Return the axes of a panel: its place, without margins for its title and its legend."""
    x, y, width, panel_height = panel.place
    top, bottom = margins
    left = MARGIN + (1 - 2 * MARGIN) * x / 24 + 0.03
    usable = (1 - 2 * MARGIN) * width / 24 - 0.045
    floor = 1 - (y + TOP + panel_height - bottom) / height
    return figure.add_axes((left, floor, usable, (panel_height - top - bottom) / height))


def draw_number(axes: Axes, panel: Panel, lines: Lines) -> None:
    """Draw the number in the middle of the run, over its course."""
    ((_, values),) = list(lines.items())
    axes.set_axis_off()
    axes.fill_between([t for t, _ in values], [v for _, v in values], color="#cfe3f5", linewidth=0)
    number = sorted(values)[len(values) // 2][1]
    text = panel.texts.get(f"{number:g}") or short(number)
    axes.text(0.5, 0.45, text, transform=axes.transAxes, ha="center", va="center", fontsize=15)
    axes.set_title(panel.title, fontsize=8.5, pad=2)


def draw_lines(axes: Axes, panel: Panel, lines: Lines, prometheus: Prometheus) -> None:
    colors = mpl.colormaps["tab10"].colors
    names = list(lines)
    if panel.stacked:
        times = sorted({time for values in lines.values() for time, _ in values})
        tables = [dict(values) for values in lines.values()]
        stacked = [[table.get(time, 0.0) for time in times] for table in tables]
        axes.stackplot(times, stacked, labels=names, colors=colors, alpha=0.75)
    else:
        for number, (name, values) in enumerate(lines.items()):
            times, numbers = with_gaps(values)
            axes.plot(times, numbers, label=name, linewidth=1.2, color=colors[number % 10])
    axes.set_title(panel.title, fontsize=8.5, loc="left", pad=4)
    axes.set_xlim(0, prometheus.end - prometheus.start)
    axes.set_ylim(bottom=0)
    if axes.get_ylim()[1] < 1 and max_of(lines) == 0:
        axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=panel.unit == "short"))
    for at in prometheus.faults.values():
        axes.axvline(at - prometheus.start, color="#888888", linewidth=0.8, linestyle=":")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.set_axisbelow(True)
    axes.grid(visible=True, linewidth=0.4, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    columns = 2 if len(names) > 2 or max(map(len, names)) < 24 else 1
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.21),
        ncol=columns,
        fontsize=6.5,
        frameon=False,
        borderaxespad=0,
        columnspacing=1.0,
        handlelength=1.0,
        labelspacing=0.2,
    )


def max_of(lines: Lines) -> float:
    return max(value for values in lines.values() for _, value in values)


def with_gaps(values: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return times and numbers, with NaN where there were none for a while."""
    times: list[float] = []
    numbers: list[float] = []
    for time, number in values:
        if times and time - times[-1] > GAP_SECONDS:
            times.append(time)
            numbers.append(float("nan"))
        times.append(time)
        numbers.append(number)
    return times, numbers


def shown(value: float, unit: str) -> str:
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "bytes":
            return f"{value:.3g} MiB"
        case "s":
            return f"{1000 * value:.3g} ms" if abs(value) < 1 and value else f"{value:.3g} s"
        case "cps":
            return f"{value:.3g}/s"
        case _:
            return short(value)


def short(value: float) -> str:
    return f"{value / 1000:.3g} k" if abs(value) >= 1000 else f"{value:.3g}"


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ops-") as folder, monitored_run(Path(folder)) as found:
        draw(found, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
