"""The report of a validation, as tables."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from workers.validation.record import Compared, Validation
from workers.validation.statistics import (
    EXPECTED,
    FLOOR,
    MEAN_BOUND,
    NORM_BOUND,
    OUTLIER_BOUND,
    OUTLIER_Z,
    STD_BOUND,
)

#: Width of the report in characters; no table is wider.
WIDTH = 100

#: Title and number format of each figure, by its name in ``Comparison``.
FIGURES = {
    "cosine_min": ("min\ncosine", ".6f"),
    "cosine_mean": ("mean\ncosine", ".6f"),
    "centred_cosine_min": ("centred\nmin", ".6f"),
    "mean_difference": ("Δ mean", ".5f"),
    "std_difference": ("Δ std", ".2%"),
    "norm_difference": ("Δ norm", ".2%"),
    "outliers": (f"|z| > {OUTLIER_Z:g}", ".2%"),
    "nan": ("NaN", ",d"),
    "inf": ("Inf", ",d"),
}

BOUNDS = (
    f"Bounds: min cosine at least {FLOOR} ({EXPECTED} is expected), Δ mean under {MEAN_BOUND}, "
    f"Δ std under {STD_BOUND:.0%}, Δ norm under {NORM_BOUND:.0%}, |z| > {OUTLIER_Z:g} under "
    f"{OUTLIER_BOUND:.0%}, no NaN, no Inf. '!' marks a figure that is out of bounds, 'low' a "
    "cosine below the expected one."
)

CENTRED = (
    "Centred min: the same after subtracting the mean of the references; not part of the verdict."
)

RANDOM_WEIGHTS = (
    "Random weights: this validates the arithmetic on this machine, not the trained model."
)


def print_report(validation: Validation) -> None:
    """Print the report to standard output, with tables in full width on any terminal."""
    console = Console(width=WIDTH, markup=False, emoji=False, highlight=False)
    for line in heading(validation):
        console.print(line)
    for title, compared in groupby(validation.comparisons, key=lambda each: each.title):
        console.print()
        console.print(comparison_table(title, compared))
    console.print()
    console.print(CENTRED)
    console.print(BOUNDS)
    console.print(verdict_line(validation))


def heading(validation: Validation) -> Iterator[str]:
    weights = f" from {validation.weights}" if validation.weights else ""
    versions = ", ".join(f"{name} {version}" for name, version in validation.versions.items())
    lengths = [length for each in validation.sets for length in each.lengths]
    yield f"Model      {validation.model}{weights}, fingerprint {validation.fingerprint}"
    yield f"Precision  {validation.precision} against fp32, on {validation.device}"
    yield (
        f"Sequences  {len(lengths):,} random ones of {min(lengths):,} to {max(lengths):,} "
        f"{validation.unit}"
    )
    yield f"Software   {versions}"
    if validation.random_weights:
        yield RANDOM_WEIGHTS


def comparison_table(title: str, compared: Iterable[Compared]) -> Table:
    """Return a table with a row for each set."""
    table = Table(
        Column("set", min_width=9),
        *(Column(name, justify="right", no_wrap=True) for name, _ in FIGURES.values()),
        Column("result", min_width=6),
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,  # columns are separated by a space anyway
    )
    for each in compared:
        figures = (figure_cell(each, name, form) for name, (_, form) in FIGURES.items())
        table.add_row(each.set, *figures, result_cell(each))
    return table


def figure_cell(compared: Compared, name: str, form: str) -> Text:
    value = getattr(compared.figures, name)
    if value is None:
        return Text("-")
    text = format(value, form)
    return Text(f"{text}!", style="bold red") if name in compared.failures else Text(text)


def result_cell(compared: Compared) -> Text:
    if not compared.passed:
        return Text("FAIL", style="bold red")
    if not compared.figures.as_expected:
        return Text("low", style="yellow")
    return Text("pass", style="green")


def verdict_line(validation: Validation) -> Text:
    word, may = ("PASS", "may") if validation.passed else ("FAIL", "must not")
    served = f"these weights {may} be served in {validation.precision} on {validation.device}"
    style = "bold green" if validation.passed else "bold red"
    return Text(f"{word}: {served}: {validation.summary}.", style=style)
