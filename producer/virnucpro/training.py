"""The training of a VirNucPro classifier on one's own contigs.

The network and its loss are those of VirNucPro: ``Linear(D, H)``, batch normalisation, ReLU,
dropout of one half, ``Linear(H, 2)``, and cross-entropy, here weighted so that both classes count
alike however many frames each has. Adam minimises it. Training ends when the loss of held-out
contigs falls no further, and the weights of their lowest loss are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.embeddings.arrays import Array
from common.errors import UserError
from common.text import counted
from producer.virnucpro.classifier import CLASSES, NORM_EPS, Classifier
from producer.virnucpro.evaluation import chunk_figures, frame_figures
from producer.virnucpro.fitting import Generators, Options, Sets, best_epoch, fit
from producer.virnucpro.minibatches import Features, RowReader, finite_rows
from producer.virnucpro.network import Network
from producer.virnucpro.split import chunk_numbers, contigs_by_class, held_out_rows
from producer.virnucpro.training_report import ByClass, Epoch, SetCounts, TrainingReport


@dataclass(frozen=True)
class Examples:
    """Frames with their features and labels.

    Raises:
        UserError: the arrays are not of the same frames, or a contig is of both classes.
    """

    features: Features  # float32 [n, D]
    labels: Array  # 1 for a virus, 0 for others, [n]
    groups: Array  # number of the contig, [n]
    chunks: Array  # number of the chunk, of all or of its contig's, [n]

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("labels", "groups", "chunks")}
        if len(self.features.shape) != 2 or set(shapes.values()) != {self.features.shape[:1]}:
            raise UserError(
                f"Features are [frames, width] and the rest [frames], but features are "
                f"{self.features.shape} and the rest {shapes}. Give arrays of the same frames."
            )
        if not np.isin(self.labels, (0, 1)).all():
            raise UserError("A label is neither 0 nor 1. Give 1 for a virus, 0 for others.")
        if len(both := np.intersect1d(*contigs_by_class(self.labels, self.groups))):
            raise UserError(
                f"Contigs with frames of both classes: {len(both)}, the first is number {both[0]}. "
                "Give each contig one label."
            )


@dataclass(frozen=True)
class Trained:
    """A trained classifier, and how well it does."""

    classifier: Classifier  # without a chunk length and models, which examples do not tell
    report: TrainingReport


def ignore(_: Epoch) -> None:
    """Do nothing with an epoch."""


def train(
    examples: Examples,
    *,
    held_out: float = 0.2,
    hidden: int = 512,
    epochs: int = 50,
    batch: int = 512,
    rate: float = 1e-3,
    seed: int = 0,
    patience: int = 5,
    on_epoch: Callable[[Epoch], None] = ignore,
) -> Trained:
    """Train a classifier.

    Frames with NaN or infinite features are left out and counted. All frames of a contig are in the
    training set, or all are held out. The same examples and options give the same classifier on one
    machine, whether features are in memory or in a file.

    Args:
        examples: labelled frames; their features are read in slices, once for each epoch.
        held_out: share of each class's contigs that is held out.
        hidden: width of the hidden layer.
        epochs: the most passes over the training set.
        batch: the most frames of a minibatch.
        rate: learning rate of Adam.
        seed: of the split, the first weights, the order and the dropout.
        patience: number of epochs without a lower held-out loss after which training ends.
        on_epoch: called after each epoch.

    Raises:
        UserError: an option is out of its range, a class has fewer than two contigs with finite
            features, or the training overflows.
    """
    options = Options(
        held_out=held_out,
        hidden=hidden,
        epochs=epochs,
        batch=batch,
        rate=rate,
        seed=seed,
        patience=patience,
    )
    generators = Generators(seed)
    sets = split(examples, held_out, generators.split)
    network, done = fit(sets, options, generators, on_epoch)
    classifier = as_classifier(network)
    return Trained(classifier, report(examples, options, sets, done, classifier))


def split(examples: Examples, share: float, generator: np.random.Generator) -> Sets:
    """Return a training set and a held-out set of the frames with finite features.

    Raises:
        UserError: a class has fewer than two contigs with such frames.
    """
    finite = finite_rows(examples.features)
    labels = examples.labels.astype(np.int64)
    check_contigs(labels[finite], examples.groups[finite], int((~finite).sum()))
    held_out = finite.copy()
    held_out[finite] = held_out_rows(labels[finite], examples.groups[finite], share, generator)
    return Sets(examples.features, labels, training=finite & ~held_out, held_out=held_out)


def check_contigs(labels: Array, groups: Array, not_finite: int) -> None:
    """Raise an error unless each class has two contigs or more."""
    for name, contigs in zip(CLASSES, contigs_by_class(labels, groups), strict=True):
        if len(contigs) < 2:
            without = f" ({counted(not_finite, 'frame')} left out for NaN or infinite features)"
            raise UserError(
                f"Class {name} has {counted(len(contigs), 'contig')} to train on"
                f"{without if not_finite else ''}. Give at least 2 of each class: one is held out "
                "to measure the classifier."
            )


def as_classifier(network: Network) -> Classifier:
    return Classifier(
        hidden_weight=network.hidden_weight,
        hidden_bias=network.hidden_bias,
        norm_weight=network.norm_weight,
        norm_bias=network.norm_bias,
        running_mean=network.running_mean,
        running_var=network.running_var,
        norm_eps=NORM_EPS,
        output_weight=network.output_weight,
        output_bias=network.output_bias,
        chunk=None,
        models=None,
    )


def report(
    examples: Examples, options: Options, sets: Sets, epochs: list[Epoch], classifier: Classifier
) -> TrainingReport:
    """Return the report of a training, with figures of the held-out set."""
    reader = RowReader(sets.features, sets.held_out)
    scores = np.concatenate([classifier.scores(rows.features) for rows in reader.in_order()])
    labels = sets.labels[sets.held_out]
    chunks = chunk_numbers(examples.groups, examples.chunks)
    return TrainingReport(
        seed=options.seed,
        features=sets.features.shape[1],
        hidden=options.hidden,
        batch=options.batch,
        rate=options.rate,
        patience=options.patience,
        held_out_share=options.held_out,
        class_weights=dict(zip(CLASSES, sets.class_weights, strict=True)),
        frames_not_finite=int((~(sets.training | sets.held_out)).sum()),
        training=counts(sets.labels, examples.groups, chunks, sets.training),
        held_out=counts(sets.labels, examples.groups, chunks, sets.held_out),
        epochs=tuple(epochs),
        best_epoch=best_epoch(epochs).number,
        frames=frame_figures(scores, labels),
        chunks=chunk_figures(scores, labels, chunks[sets.held_out]),
    )


def counts(labels: Array, groups: Array, chunks: Array, chosen: Array) -> SetCounts:
    """Return the numbers of contigs, chunks and frames of the chosen frames, bool ``[n]``."""
    of_class = [chosen & (labels == label) for label in range(len(CLASSES))]
    others, virus = (
        (len(np.unique(groups[rows])), len(np.unique(chunks[rows])), int(rows.sum()))
        for rows in of_class
    )
    contigs, of_chunks, frames = (
        ByClass(others=a, virus=b) for a, b in zip(others, virus, strict=True)
    )
    return SetCounts(contigs=contigs, chunks=of_chunks, frames=frames)
