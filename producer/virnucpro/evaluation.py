"""Figures of a classifier's scores against labels: pure functions of arrays.

Viruses are the positive class. Labels are 0 for others and 1 for a virus.
"""

import numpy as np

from common.embeddings.arrays import Array
from producer.virnucpro.calibration import expected_calibration_error, reliability
from producer.virnucpro.split import class_weights
from producer.virnucpro.training_report import Confusion, Figures, FrameFigures


def frame_figures(scores: Array, labels: Array) -> FrameFigures:
    """Return the figures of frames, of which both classes have some.

    A frame is called a virus if its second score is higher than its first.

    Args:
        scores: of others and of a virus, ``[n, 2]``.
        labels: ``[n]``.
    """
    virus = scores[:, 1].astype(np.float64)
    bins = reliability(virus, labels)
    return FrameFigures(
        **figures(virus, scores[:, 1] > scores[:, 0], labels).model_dump(),
        brier=brier_score(virus, labels),
        expected_calibration_error=expected_calibration_error(bins),
        reliability=bins,
    )


def chunk_figures(scores: Array, labels: Array, chunks: Array) -> Figures:
    """Return the figures of chunks, each called by the highest scores of its frames.

    A chunk is a virus if its frames' highest virus score is no lower than their highest score of
    others, as in VirNucPro's table of highest scores. Chunks are ranked by the difference of the
    two.

    Args:
        scores: of frames, ``[n, 2]``.
        labels: of frames, the same for all of a chunk, ``[n]``.
        chunks: number of each frame's chunk, ``[n]``.
    """
    _, first, place = np.unique(chunks, return_index=True, return_inverse=True)
    highest = np.full((len(first), 2), -np.inf)
    np.maximum.at(highest, place, scores)
    margin = highest[:, 1] - highest[:, 0]
    return figures(margin, margin >= 0, labels[first])


def figures(ranking: Array, called: Array, labels: Array) -> Figures:
    """Return the figures of calls.

    Args:
        ranking: the higher, the more likely a virus, ``[n]``.
        called: whether a virus is called, bool ``[n]``.
        labels: ``[n]``, of both classes.
    """
    virus = labels == 1
    confusion = Confusion(
        true_positives=int((called & virus).sum()),
        false_negatives=int((~called & virus).sum()),
        false_positives=int((called & ~virus).sum()),
        true_negatives=int((~called & ~virus).sum()),
    )
    return Figures(
        accuracy=confusion.accuracy,
        balanced_accuracy=confusion.balanced_accuracy,
        auroc=auroc(ranking, labels),
        confusion=confusion,
    )


def auroc(ranking: Array, labels: Array) -> float:
    """Return the area under the ROC curve: the probability that a virus ranks above another.

    Equal ranks count one half (the Mann-Whitney statistic; Hanley and McNeil 1982).
    """
    values, place = np.unique(ranking, return_inverse=True)
    viruses = np.bincount(place[labels == 1], minlength=len(values))
    others = np.bincount(place[labels == 0], minlength=len(values))
    below = np.cumsum(others) - others
    above = float((viruses * (below + others / 2)).sum())
    return above / (float(viruses.sum()) * float(others.sum()))


def brier_score(scores: Array, labels: Array) -> float:
    """Return the mean squared difference of scores from labels (Brier 1950, for one class).

    Both classes count alike, as in training. 0 is perfect; 0.25 is a score of one half for all.
    """
    weights = np.array(class_weights(labels))[labels]
    return float((weights * (scores - labels) ** 2).mean())
