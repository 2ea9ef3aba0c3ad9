"""The fit of a network to a training set, until the loss of a held-out set falls no further."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.embeddings.arrays import Array
from common.errors import UserError
from producer.virnucpro.adam import Adam
from producer.virnucpro.minibatches import FEWEST_ROWS, Features, RowReader
from producer.virnucpro.network import (
    TRAINED,
    Network,
    backward,
    cross_entropy,
    dropout_factors,
)
from producer.virnucpro.split import class_weights
from producer.virnucpro.training_report import Epoch

#: Probability that a hidden value is dropped: VirNucPro's.
DROPOUT = 0.5


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a training."""

    held_out: float  # share of each class's contigs
    hidden: int  # width of the hidden layer
    epochs: int  # at most
    batch: int  # frames of a minibatch, at most
    rate: float  # learning rate of Adam
    seed: int
    patience: int  # epochs without a lower held-out loss, after which training ends

    def __post_init__(self) -> None:
        for name, least in {"hidden": 1, "epochs": 1, "batch": FEWEST_ROWS, "patience": 1}.items():
            if (value := getattr(self, name)) < least:
                raise UserError(f"{name} is {value}: give at least {least}.")
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}: give a share between 0 and 1.")
        if not 0 < self.rate < float("inf"):
            raise UserError(f"rate is {self.rate}: give a number above 0, such as 0.001.")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}: give 0 or more.")


class Generators:
    """Independent sources of random numbers from one seed, one for each purpose."""

    def __init__(self, seed: int) -> None:
        self.split, self.weights, self.order, self.dropout = np.random.default_rng(seed).spawn(4)


@dataclass(frozen=True)
class Sets:
    """The frames of a training set and of a held-out set."""

    features: Features  # float32 [n, D]
    labels: Array  # int64 [n]
    training: Array  # bool [n]
    held_out: Array  # bool [n]

    @property
    def class_weights(self) -> tuple[float, float]:
        """The weights by which both classes count alike in the training set."""
        return class_weights(self.labels[self.training])

    def held_out_loss(self, network: Network) -> float:
        """Return the mean of the held-out frames' weighted cross-entropy, without dropout."""
        labels = self.labels[self.held_out]
        weights = np.array(class_weights(labels))
        total = 0.0
        for rows in RowReader(self.features, self.held_out).in_order():
            of_rows = self.labels[rows.places]
            losses = cross_entropy(network.logits(rows.features), of_rows)
            total += float((losses * weights[of_rows]).sum())
        return total / len(labels)


def fit(
    sets: Sets, options: Options, generators: Generators, on_epoch: Callable[[Epoch], None]
) -> tuple[Network, list[Epoch]]:
    """Return the network at its lowest held-out loss, and all epochs.

    Raises:
        UserError: a loss or a weight is not finite.
    """
    width = sets.features.shape[1]
    network = Network.initial(width, options.hidden, generators.weights)
    optimiser = Adam({name: getattr(network, name) for name in TRAINED}, options.rate)
    epochs: list[Epoch] = []
    kept, best = network, 0
    while len(epochs) < options.epochs and len(epochs) - best < options.patience:
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            loss = train_epoch(network, optimiser, sets, options.batch, generators)
            held_out_loss = sets.held_out_loss(network)
        check_finite(network, loss, held_out_loss, len(epochs) + 1)
        epochs.append(Epoch(number=len(epochs) + 1, loss=loss, held_out_loss=held_out_loss))
        if best_epoch(epochs).number == len(epochs):
            kept, best = network.copy(), len(epochs)
        on_epoch(epochs[-1])
    return kept, epochs


def best_epoch(epochs: list[Epoch]) -> Epoch:
    """Return the first epoch with the lowest held-out loss."""
    return min(epochs, key=lambda epoch: epoch.held_out_loss)


def train_epoch(
    network: Network, optimiser: Adam, sets: Sets, batch: int, generators: Generators
) -> float:
    """Train a network on each frame of the training set once; return the mean loss."""
    weights = np.array(sets.class_weights)
    total, count = 0.0, 0
    for rows in RowReader(sets.features, sets.training).minibatches(generators.order, batch):
        labels = sets.labels[rows.places]
        shape = (len(labels), len(network.hidden_bias))
        dropout = dropout_factors(generators.dropout, shape, DROPOUT)
        total += len(labels) * train_step(
            network, optimiser, rows.features, labels, weights[labels], dropout
        )
        count += len(labels)
    return total / count


def train_step(
    network: Network,
    optimiser: Adam,
    features: Array,
    labels: Array,
    weights: Array,
    dropout: Array | None,
) -> float:
    """Train a network on one minibatch, and return its loss before that; see ``backward``."""
    found = backward(network, features, labels, weights, dropout)
    network.update_running(found.mean, found.variance, len(features))
    optimiser.step(found.gradients)
    return found.loss


def check_finite(network: Network, loss: float, held_out_loss: float, epoch: int) -> None:
    """Raise an error unless the losses and all arrays of a network are finite."""
    arrays = vars(network).values()
    if not all(np.isfinite(each).all() for each in (loss, held_out_loss, *arrays)):
        raise UserError(
            f"The training overflowed in epoch {epoch} (loss {loss:g}, held out "
            f"{held_out_loss:g}). Give a lower rate, or look for features of very large values."
        )
