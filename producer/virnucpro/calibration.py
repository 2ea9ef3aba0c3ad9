"""The calibration of scores: whether a score is the probability of a virus.

A reliability diagram (DeGroot and Fienberg 1983) has the mean score of each of ten bins against the
share of viruses among its frames. Both classes weigh alike, as in training: a score is the
probability of a virus where viruses and others are equally frequent.
"""

from collections.abc import Iterator, Sequence
from string import Template

import numpy as np

from common.embeddings.arrays import Array
from common.wire.messages import Document
from producer.virnucpro.split import class_weights

#: Number of bins, of equal width.
BINS = 10


class ReliabilityBin(Document):
    """The frames whose virus score is from one edge up to the next; the last bin has 1 too."""

    low: float
    high: float
    others: int  # frames
    virus: int
    weight: float  # share of all frames, with both classes weighted alike
    mean_score: float | None  # None: no frame
    virus_share: float | None


def reliability(scores: Array, labels: Array) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram.

    Args:
        scores: of a virus, between 0 and 1, ``[n]``.
        labels: 1 for a virus, 0 for others, ``[n]``; both occur.
    """
    edges = np.arange(BINS + 1) / BINS
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    weights = np.array(class_weights(labels))[labels] / len(labels)
    others, virus = (np.bincount(place[labels == k], minlength=BINS) for k in (0, 1))
    total = np.bincount(place, weights, BINS)
    score = np.bincount(place, weights * scores, BINS)
    of_virus = np.bincount(place, weights * labels, BINS)
    return tuple(
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            others=int(others[k]),
            virus=int(virus[k]),
            weight=float(total[k]),
            mean_score=float(score[k] / total[k]) if total[k] else None,
            virus_share=float(of_virus[k] / total[k]) if total[k] else None,
        )
        for k in range(BINS)
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the mean distance of bins' mean scores from their shares of viruses.

    It is weighted by the bins' frames (Naeini, Cooper and Hauskrecht 2015); 0 is perfect.
    """
    return sum(
        each.weight * abs(each.mean_score - each.virus_share)
        for each in bins
        if each.mean_score is not None and each.virus_share is not None
    )
