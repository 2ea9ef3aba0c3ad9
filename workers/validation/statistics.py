"""Differences of embeddings from their reference: pure functions of two arrays ``[N, D]``."""

from dataclasses import dataclass

import numpy as np

from common.embeddings.arrays import Array

#: Bounds of the cosine similarity of a sequence's two embeddings: below the floor a model must not
#: be served in half precision, below the expected value it is marked as low.
FLOOR, EXPECTED = 0.99, 0.999

#: Upper bounds of differences: of the means of all values (absolute; embeddings have a mean near
#: 0), of their standard deviations (relative), and of each sequence's L2 norm (relative).
MEAN_BOUND, STD_BOUND, NORM_BOUND = 0.01, 0.05, 0.05

#: Upper bound of the share of outliers, which is at most 1/9 (Chebyshev's inequality).
OUTLIER_BOUND = 0.10

#: Standard deviations from the mean beyond which a value is an outlier.
OUTLIER_Z = 3.0

#: Relative rounding error of a number in FP32.
FP32_EPSILON = float(np.finfo(np.float32).eps)

THRESHOLDS = {
    "cosine_floor": FLOOR,
    "cosine_expected": EXPECTED,
    "mean_difference": MEAN_BOUND,
    "std_difference": STD_BOUND,
    "norm_difference": NORM_BOUND,
    "outliers": OUTLIER_BOUND,
}


@dataclass(frozen=True)
class Comparison:
    """The comparison of embeddings with their reference. None: no sequence is finite in both."""

    cosines: tuple[float | None, ...]  # of each sequence; None: not finite
    cosine_min: float | None
    cosine_mean: float | None
    #: The smallest cosine after centring; None also if no sequence differs from the mean.
    centred_cosine_min: float | None
    mean_difference: float | None  # of all values, absolute
    std_difference: float | None  # of all values, relative
    norm_difference: float | None  # largest of a sequence, relative
    outliers: float | None  # share of the measured values
    nan: int  # number of values that are NaN in either
    inf: int

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the figures that are out of bounds."""
        bounds = {
            "mean_difference": MEAN_BOUND,
            "std_difference": STD_BOUND,
            "norm_difference": NORM_BOUND,
            "outliers": OUTLIER_BOUND,
        }
        failed = [name for name in ("nan", "inf") if getattr(self, name)]
        if self.cosine_min is None or self.cosine_min < FLOOR:
            failed.append("cosine_min")
        for name, bound in bounds.items():
            figure = getattr(self, name)
            if figure is not None and figure >= bound:
                failed.append(name)
        return tuple(failed)

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def as_expected(self) -> bool:
        """Whether the comparison passed with cosines as high as expected."""
        return self.passed and self.cosine_min is not None and self.cosine_min >= EXPECTED


def compare(measured: Array, reference: Array) -> Comparison:
    """Compare embeddings ``[N, D]`` with their reference ``[N, D]``; both may have NaN and Inf.

    The figures are those of the sequences that are finite in both, computed in FP64.
    """
    assert measured.shape == reference.shape, (measured.shape, reference.shape)
    finite = (np.isfinite(measured) & np.isfinite(reference)).all(axis=1)
    a, b = measured[finite].astype(np.float64), reference[finite].astype(np.float64)
    similar, centred = cosines(a, b), centred_cosines(a, b)
    by_sequence = np.full(len(measured), np.nan)
    by_sequence[finite] = similar
    return Comparison(
        cosines=tuple(None if np.isnan(cosine) else cosine for cosine in by_sequence.tolist()),
        cosine_min=float(similar.min()) if similar.size else None,
        cosine_mean=float(similar.mean()) if similar.size else None,
        centred_cosine_min=float(centred.min()) if centred.size else None,
        mean_difference=abs(float(a.mean() - b.mean())) if a.size else None,
        std_difference=float(relative_difference(a.std(), b.std())) if a.size else None,
        norm_difference=float(norm_differences(a, b).max()) if a.size else None,
        outliers=outlier_share(a) if a.size else None,
        nan=int((np.isnan(measured) | np.isnan(reference)).sum()),
        inf=int((np.isinf(measured) | np.isinf(reference)).sum()),
    )


def cosines(a: Array, b: Array) -> Array:
    """Return the cosine similarity of each row ``[N]``; 0 if either row is all zeros."""
    products = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = (a * b).sum(1)
    return np.divide(dots, products, out=np.zeros_like(dots), where=products > 0)


def centred_cosines(a: Array, b: Array) -> Array:
    """Return the cosine similarity of each row of ``a`` to its reference, after centring.

    Embeddings of one model may be so alike that any two have a high cosine. Centring subtracts the
    mean of all references from both. Rows whose reference equals that mean within FP32's precision
    are left out, since they have no direction.
    """
    mean = b.mean(axis=0) if len(b) else 0.0
    away = np.linalg.norm(b - mean, axis=1) > FP32_EPSILON * np.linalg.norm(b, axis=1)
    return cosines((a - mean)[away], (b - mean)[away])


def norm_differences(a: Array, b: Array) -> Array:
    """Return the relative difference of each row's L2 norm from its reference's, ``[N]``."""
    return relative_difference(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def relative_difference(a: Array, b: Array) -> Array:
    """Return ``|a - b| / b`` of non-negative numbers; for b = 0 it is 1, or 0 if a = 0."""
    difference = np.abs(a - b)
    safe = np.where(b > 0, b, 1.0)
    return np.where(b > 0, difference / safe, np.sign(difference))


def outlier_share(values: Array) -> float:
    """Return the share of values with a z-score beyond ``OUTLIER_Z``."""
    return float((np.abs(values - values.mean()) > OUTLIER_Z * values.std()).mean())
