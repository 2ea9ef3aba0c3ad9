"""The verdict of a validation, which passes if all comparisons of embeddings pass."""

import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import torch

from common import __version__
from common.embeddings.arrays import Array
from common.model_source import ModelSource
from workers.validation.measure import Measured
from workers.validation.record import Compared, ValidatedSet, Validation
from workers.validation.sets import SEED
from workers.validation.statistics import THRESHOLDS, compare

#: Pairs that are compared, by precision and layout. The first pair is a worker's computation and
#: the simplest one of the same vectors; the others show where a difference comes from.
PAIRS = (
    (("half", "packed"), ("fp32", "padded")),
    (("half", "padded"), ("fp32", "padded")),
    (("half", "packed"), ("half", "padded")),
    (("fp32", "packed"), ("fp32", "padded")),
)


def judge(
    model: ModelSource, source: ModelSource, device: str, reference: Measured, half: Measured
) -> Validation:
    """Compare all pairs and return the verdict.

    Args:
        model: the model as the user named it.
        source: the source of its weights.
        device: the device's full name.
        reference: the sets computed in FP32.
        half: the same sets computed in half precision.
    """
    comparisons = tuple(compare_sets(reference, half))
    worst = min(comparisons, key=lowest_cosine)
    return Validation(
        model=model.text,
        weights=source.text if source != model else None,
        random_weights=source.is_random,
        fingerprint=half.fingerprint,
        precision=half.precision,
        device=device,
        date=datetime.now(UTC),
        passed=all(each.passed for each in comparisons),
        failures=tuple(dict.fromkeys(name for each in comparisons for name in each.failures)),
        cosine_min=worst.figures.cosine_min,
        worst=f"{worst.set}, {worst.title}",
        nan=count(np.isnan, reference, half),
        inf=count(np.isinf, reference, half),
        unit=half.spec.family.alphabet.plural,
        versions=versions(),
        thresholds=THRESHOLDS,
        seed=SEED,
        sets=tuple(ValidatedSet(name=each.name, lengths=each.lengths) for each in half.sets),
        comparisons=comparisons,
    )


def compare_sets(reference: Measured, half: Measured) -> Iterator[Compared]:
    """Yield the comparison of every pair for every set."""
    by_name = {"half": half, "fp32": reference}

    def embeddings(variant: tuple[str, str], name: str) -> Array:
        precision, layout = variant
        vectors: dict[str, Array] = getattr(by_name[precision], layout)
        return vectors[name]

    def title(variant: tuple[str, str]) -> str:
        precision, layout = variant
        return f"{by_name[precision].precision} {layout}"

    for measured, expected in PAIRS:
        for each in half.sets:
            figures = compare(embeddings(measured, each.name), embeddings(expected, each.name))
            yield Compared(
                set=each.name,
                measured=title(measured),
                reference=title(expected),
                passed=figures.passed,
                failures=figures.failures,
                figures=figures,
            )


def lowest_cosine(compared: Compared) -> float:
    """Return the lowest cosine of a comparison; minus infinity if no embedding is finite."""
    lowest = compared.figures.cosine_min
    return -np.inf if lowest is None else lowest


def count(is_bad: Callable[[Array], Array], *models: Measured) -> int:
    """Return how many values of all embeddings, in both layouts, are bad."""
    layouts = [layout for model in models for layout in (model.packed, model.padded)]
    return sum(int(is_bad(vectors).sum()) for layout in layouts for vectors in layout.values())


def versions() -> dict[str, str]:
    """Return the versions of everything that the numbers may depend on."""
    found = {
        "virnucpro-fleet": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    return found if torch.version.cuda is None else {**found, "cuda": torch.version.cuda}
