"""The report of ``worker validate --published``: a few lines, of which the last is the verdict."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.text import Text

from workers.validation.published.judge import Compared, Installation

#: What to do where the published weights give other numbers, in FP32 or in half precision alone.
COMPUTES_OTHERWISE = (
    "The weights are the published ones, so this installation computes otherwise: try --device "
    "cpu, then other versions of PyTorch and of the GPU's driver."
)
HALF_ALONE = "In fp32 it does: worker validate without --published compares the two."


def print_report(found: Installation, source: str) -> None:
    """Print the report to standard output, each of its lines on one line.

    Args:
        source: where the published numbers come from.
    """
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    for line in heading(found, source):
        console.print(line)
    style = "bold green" if found.passed else "bold red"
    console.print(Text(verdict(found), style=style))


def heading(found: Installation, source: str) -> Iterator[str]:
    """Yield what was compared with what, and the figures of each precision."""
    weights = f" from {found.weights}" if found.weights else ""
    software = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    yield f"Model      {found.model}{weights}, fingerprint {found.fingerprint}"
    yield f"Published  {found.published}: {found.repository}, revision {found.revision}"
    yield f"Source     {source}"
    yield f"Software   {software}"
    yield from files(found)
    for each in found.comparisons:
        yield f"{each.precision:10} {figures(each)}: {'pass' if each.passed else 'FAIL'}"


def files(found: Installation) -> Iterator[str]:
    """Yield whether the files are the published ones; if not, both hashes and how to see them."""
    if not found.other_files:
        names = ", ".join(Path(file).name for file in found.sha256)
        yield f"Files      {names}: published, by their SHA-256"
    for file in found.other_files:
        yield f"Files      {Path(file).name}: not a published file. sha256sum {quote(file)} gives"
        yield f"           {found.sha256[file]}; published are"
        for name, sha256 in found.published_sha256.items():
            yield f"           {sha256} {name}"


def figures(compared: Compared) -> str:
    """Return the figures of a comparison in words."""
    if compared.cosine_min is None or compared.difference is None:
        return "a vector is not finite"
    cosine = f"smallest cosine {compared.cosine_min:.6f}"
    difference = f"largest difference {compared.difference:.2%}"
    return f"{cosine}, {difference} (tolerance {compared.tolerance:.0%})"


def verdict(found: Installation) -> str:
    """Return the verdict in one line, with the figures of the precision that is furthest off."""
    worst = found.worst
    where = f"{figures(worst)}, in {worst.precision} on {found.device}"
    numbers = f"the numbers of the authors' code for {found.published}"
    if found.passed:
        return f"PASS: this installation gives {numbers}: {where}."
    if not found.has_published_weights:
        return (
            f"FAIL: these are other weights than the published ones of {found.published}: {where}."
        )
    in_half_alone = any(each.passed for each in found.comparisons)
    advice = HALF_ALONE if in_half_alone else COMPUTES_OTHERWISE
    return f"FAIL: this installation does not give {numbers}: {where}. {advice}"
