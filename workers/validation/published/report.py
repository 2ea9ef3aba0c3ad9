"""The report of ``worker validate --published``: a few lines, of which the last is the verdict."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from workers.validation.published.figures import read_published
from workers.validation.published.judge import Compared, Installation
from workers.validation.report import WIDTH

#: What may be wrong where the published weights give other numbers.
ADVICE = (
    "The weights are the published ones, so that something in this installation computes "
    "otherwise: try --device cpu, then other versions of PyTorch and of the GPU's driver."
)


def print_report(found: Installation) -> None:
    """Print the report to standard output."""
    console = Console(width=WIDTH, markup=False, emoji=False, highlight=False, soft_wrap=True)
    for line in heading(found):
        console.print(line)
    style = "bold green" if found.passed else "bold red"
    console.print(Text(verdict(found), style=style))


def heading(found: Installation) -> Iterator[str]:
    """Yield what was compared with what, a line for each precision, and what files differ."""
    weights = f" from {found.weights}" if found.weights else ""
    software = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    yield f"Model      {found.model}{weights}, fingerprint {found.fingerprint}"
    yield f"Published  {found.repository} at revision {found.revision}"
    yield f"Source     {read_published().source}"
    yield f"Software   {software}"
    for each in found.comparisons:
        yield f"{each.precision:10} {figures(each)}: {'pass' if each.passed else 'FAIL'}"
    for file in found.other_files:
        yield f"{Path(file).name}: {why_other(file, found)}"


def figures(compared: Compared) -> str:
    if compared.difference is None:
        return "a vector is not finite"
    return (
        f"smallest cosine {compared.cosine_min:.6f}, largest difference {compared.difference:.2%}"
    )


def why_other(file: str, found: Installation) -> str:
    """Return a sentence about a file that is not one of the published ones."""
    (model,) = (each for each in read_published().models if each.name == found.published)
    known = ", ".join(f"{sha256} ({name})" for name, sha256 in model.sha256.items())
    return f"SHA-256 {found.sha256[file]}, but published are {known}. See: sha256sum {file}"


def verdict(found: Installation) -> str:
    """Return the verdict in one line, with the figures of the precision that is furthest off."""
    tolerance = f"tolerance {found.tolerance:.0%}"
    worst = f"{figures(found.worst)} ({tolerance}) in {found.worst.precision} on {found.device}"
    if found.passed:
        other = " (from another file than the published ones)" if found.other_files else ""
        return (
            f"PASS: this installation gives the numbers of the authors' code for "
            f"{found.published}{other}: {worst}."
        )
    if found.other_files:
        return (
            f"FAIL: these are other weights than the published ones of {found.published}: {worst}."
        )
    return (
        f"FAIL: this installation does not give the numbers of the authors' code for "
        f"{found.published}: {worst}. {ADVICE}"
    )
