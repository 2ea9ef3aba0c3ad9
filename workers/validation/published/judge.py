"""The comparison with the published vectors, and the verdict."""

from collections.abc import Mapping

import numpy as np
from pydantic import AwareDatetime

from common.embeddings.arrays import Array
from common.rungs import Rung
from common.wire.messages import Document
from workers.validation.published.figures import PublishedModel
from workers.validation.statistics import cosines


class Compared(Document):
    """The comparison of all vectors, computed here in one precision."""

    precision: Rung
    cosine_min: float | None  # the smallest of a vector; None: one is not finite
    difference: float | None  # the largest L2 norm of a difference, relative to the vector's
    tolerance: float
    passed: bool


class Installation(Document):
    """Whether an installation gives the published numbers: what ``--json`` prints."""

    version: int = 1
    model: str  # ModelSource.text
    weights: str | None  # their source, if the model's name does not say it
    fingerprint: str
    device: str
    date: AwareDatetime
    passed: bool
    published: str  # the published model's name
    repository: str
    revision: str
    sha256: dict[str, str]  # of the files of weights here, by their path
    published_sha256: dict[str, str]  # of the published ones, by their name
    other_files: tuple[str, ...]  # those here that are none of the published ones
    comparisons: tuple[Compared, ...]
    versions: dict[str, str]

    @property
    def has_published_weights(self) -> bool:
        """Whether the weights are the published ones, by their file or else by their numbers."""
        numbers = any(each.passed for each in self.comparisons if each.precision is Rung.FP32)
        return not self.other_files or numbers

    @property
    def worst(self) -> Compared:
        """The comparison that is the furthest beyond its tolerance, or the nearest to it."""
        return max(self.comparisons, key=share_of_tolerance)

    @property
    def json_text(self) -> str:
        return self.model_dump_json(indent=2)


def compare(measured: Array, published: Array, precision: Rung, tolerance: float) -> Compared:
    """Compare vectors ``[V, D]`` with the published ones ``[V, D]``.

    The difference of two vectors is the L2 norm of their difference, relative to that of the
    published one. It grows with the angle between them and with the ratio r of their norms:
    ``d² = 1 + r² - 2 r cos``.

    Args:
        precision: the one in which ``measured`` was computed.
        tolerance: the largest difference of the published vectors, whose arithmetic is in BF16,
            from exact ones. In BF16 those measured have another error of that size, independent
            of the first, and the tolerance is √2 times as large.
    """
    assert measured.shape == published.shape, (measured.shape, published.shape)
    allowed = tolerance * (2**0.5 if precision is Rung.BF16 else 1.0)
    cosine_min = difference = None
    if np.isfinite(measured).all():
        a, b = measured.astype(np.float64), published.astype(np.float64)
        cosine_min = float(cosines(a, b).min())
        difference = float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())
    return Compared(
        precision=precision,
        cosine_min=cosine_min,
        difference=difference,
        tolerance=allowed,
        passed=difference is not None and difference <= allowed,
    )


def share_of_tolerance(compared: Compared) -> float:
    """Return a difference in units of its tolerance; infinity if a vector is not finite."""
    return np.inf if compared.difference is None else compared.difference / compared.tolerance


def other_files(found: Mapping[str, str], published: PublishedModel) -> tuple[str, ...]:
    """Return the files whose SHA-256 is none of the published ones, whatever their names."""
    known = set(published.sha256.values())
    return tuple(file for file, sha256 in found.items() if sha256 not in known)
