"""From embeddings to a verdict: what is compared with what, and what decides."""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import torch

from common import __version__
from common.modeltable import ModelSource
from common.shard import Array
from workers.validation.measure import Measured
from workers.validation.record import Compared, ValidatedSet, Validation
from workers.validation.sets import SEED
from workers.validation.statistics import THRESHOLDS, compare

#: What is compared with what: precision and layout. The first pair decides: what a worker does
#: against the plainest way of computing the same.
PAIRS = (
    (("half", "packed"), ("fp32", "padded")),
    (("half", "padded"), ("fp32", "padded")),
    (("half", "packed"), ("half", "padded")),
    (("fp32", "packed"), ("fp32", "padded")),
)
DECIDES = PAIRS[0]


def judge(
    model: ModelSource, source: ModelSource, device: str, reference: Measured, half: Measured
) -> Validation:
    """Compare everything and decide.

    Args:
        model: as the user named it.
        source: where its weights were read from.
        device: its name, for people.
        reference: computed in FP32.
        half: the same sets, computed in half precision.
    """
    comparisons = tuple(compare_sets(reference, half))
    deciding = [each.figures for each in comparisons if each.decides]
    lowest = [figures.cosine_min for figures in deciding if figures.cosine_min is not None]
    return Validation(
        model=model.text,
        weights=source.text if source != model else None,
        random_weights=source.is_random,
        fingerprint=half.fingerprint,
        precision=half.precision,
        device=device,
        date=datetime.now(UTC),
        passed=all(figures.passed for figures in deciding),
        cosine_min=min(lowest, default=None),
        nan=sum(figures.nan for figures in deciding),
        inf=sum(figures.inf for figures in deciding),
        unit=half.spec.family.alphabet.plural,
        versions=versions(),
        thresholds=THRESHOLDS,
        seed=SEED,
        sets=tuple(ValidatedSet(name=each.name, lengths=each.lengths) for each in half.sets),
        comparisons=comparisons,
    )


def compare_sets(reference: Measured, half: Measured) -> Iterator[Compared]:
    """Every pair, set by set."""
    by_name = {"half": half, "fp32": reference}

    def embeddings(way: tuple[str, str], name: str) -> Array:
        precision, layout = way
        vectors: dict[str, Array] = getattr(by_name[precision], layout)
        return vectors[name]

    def title(way: tuple[str, str]) -> str:
        precision, layout = way
        return f"{by_name[precision].precision} {layout}"

    for measured, expected in PAIRS:
        for each in half.sets:
            figures = compare(embeddings(measured, each.name), embeddings(expected, each.name))
            yield Compared(
                set=each.name,
                measured=title(measured),
                reference=title(expected),
                decides=(measured, expected) == DECIDES,
                passed=figures.passed,
                failures=figures.failures,
                figures=figures,
            )


def versions() -> dict[str, str]:
    """Of all that the numbers may depend on."""
    found = {
        "virnucpro-fleet": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return found if torch.version.cuda is None else {**found, "cuda": torch.version.cuda}
