"""What the training of a classifier reports: one JSON document.

Viruses are the positive class.
"""

from common.wire.messages import Document
from producer.virnucpro.calibration import ReliabilityBin


class Epoch(Document):
    """One pass over the training set."""

    number: int  # from 1
    loss: float  # mean of the minibatches, with dropout, while the weights changed
    held_out_loss: float  # after it, without dropout


class ByClass(Document):
    """A number of each class."""

    others: int
    virus: int


class SetCounts(Document):
    """What a training set or a held-out set has."""

    contigs: ByClass
    chunks: ByClass
    frames: ByClass


class Confusion(Document):
    """Calls against labels."""

    true_positives: int  # viruses called viruses
    false_negatives: int
    false_positives: int
    true_negatives: int

    @property
    def accuracy(self) -> float:
        correct = self.true_positives + self.true_negatives
        return correct / (correct + self.false_negatives + self.false_positives)

    @property
    def balanced_accuracy(self) -> float:
        """The mean of sensitivity and specificity."""
        sensitivity = self.true_positives / (self.true_positives + self.false_negatives)
        specificity = self.true_negatives / (self.true_negatives + self.false_positives)
        return (sensitivity + specificity) / 2


class Figures(Document):
    """How well frames, or chunks, are told apart."""

    accuracy: float
    balanced_accuracy: float
    auroc: float
    confusion: Confusion


class FrameFigures(Figures):
    """How well frames are told apart, and how well their scores are calibrated.

    The Brier score and the calibration weigh both classes alike, as the loss does: a score is the
    probability of a virus where viruses and others are equally frequent.
    """

    brier: float
    expected_calibration_error: float
    reliability: tuple[ReliabilityBin, ...]


class TrainingReport(Document):
    """The training of a classifier and its figures on contigs it was not trained on.

    The held-out set also chose the epoch, so its figures are slightly better than those of contigs
    that had no part in the training.
    """

    seed: int
    features: int  # width of a frame's features
    hidden: int
    batch: int
    rate: float
    patience: int
    held_out_share: float
    #: Weight of a frame in the loss, by class: both classes count alike.
    class_weights: dict[str, float]
    frames_not_finite: int  # left out, for NaN or infinite features
    training: SetCounts
    held_out: SetCounts
    epochs: tuple[Epoch, ...]
    best_epoch: int  # whose weights are kept: that of the lowest held-out loss
    frames: FrameFigures  # of the held-out set
    chunks: Figures  # of the held-out set

    @property
    def json_text(self) -> str:
        return self.model_dump_json(indent=2)
