"""The network of VirNucPro's classifier with its exact gradients, in NumPy.

``Linear(D, H)``, batch normalisation, ReLU, dropout and ``Linear(H, 2)``. Arrays keep their type:
float32 to train, float64 to check gradients.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from common.embeddings.arrays import Array
from producer.virnucpro.classifier import NORM_EPS

#: Weight of a minibatch in the running statistics: the default of ``torch.nn.BatchNorm1d``.
MOMENTUM = 0.1

#: Names of the arrays that training changes by their gradients. The bias of the hidden layer has
#: none: batch normalisation subtracts it again.
TRAINED = ("hidden_weight", "norm_weight", "norm_bias", "output_weight", "output_bias")


@dataclass(frozen=True)
class Network:
    """The arrays of a network, which training changes in place."""

    hidden_weight: Array  # [H, D]
    hidden_bias: Array  # [H]
    norm_weight: Array  # [H]
    norm_bias: Array  # [H]
    running_mean: Array  # [H]
    running_var: Array  # [H]
    output_weight: Array  # [2, H]
    output_bias: Array  # [2]

    @classmethod
    def initial(cls, features: int, hidden: int, generator: np.random.Generator) -> Self:
        """Return a network with random weights, from the distributions that PyTorch uses.

        Weights of a linear layer with ``k`` inputs are uniform between ``-1/√k`` and ``1/√k``.
        """
        return cls(
            hidden_weight=uniform(generator, features, (hidden, features)),
            hidden_bias=np.zeros(hidden, np.float32),
            norm_weight=np.ones(hidden, np.float32),
            norm_bias=np.zeros(hidden, np.float32),
            running_mean=np.zeros(hidden, np.float32),
            running_var=np.ones(hidden, np.float32),
            output_weight=uniform(generator, hidden, (2, hidden)),
            output_bias=uniform(generator, hidden, (2,)),
        )

    def copy(self) -> Self:
        """Return a network that training this one does not change."""
        return replace(self, **{name: array.copy() for name, array in vars(self).items()})

    def logits(self, features: Array) -> Array:
        """Return the logits ``[B, 2]`` of features ``[B, D]``, by the running statistics."""
        scale = self.norm_weight / np.sqrt(self.running_var + NORM_EPS)
        hidden = features @ self.hidden_weight.T
        hidden *= scale
        hidden += (self.hidden_bias - self.running_mean) * scale + self.norm_bias
        np.maximum(hidden, 0, out=hidden)
        return hidden @ self.output_weight.T + self.output_bias

    def update_running(self, mean: Array, variance: Array, rows: int) -> None:
        """Add a minibatch of at least 2 rows to the running statistics.

        Its variance, biased, is made unbiased first, as ``torch.nn.BatchNorm1d`` does.
        """
        for running, new in (
            (self.running_mean, mean),
            (self.running_var, variance * (rows / (rows - 1))),
        ):
            running *= 1 - MOMENTUM
            running += MOMENTUM * new


def uniform(generator: np.random.Generator, inputs: int, shape: tuple[int, ...]) -> Array:
    bound = np.float32(inputs**-0.5)
    return generator.random(shape, np.float32) * (2 * bound) - bound


class Backward(NamedTuple):
    """What a minibatch gives: its loss, gradients by name, and statistics before normalisation."""

    loss: float
    gradients: dict[str, Array]
    mean: Array  # [H]
    variance: Array  # [H], biased


def backward(
    network: Network, features: Array, labels: Array, weights: Array, dropout: Array | None
) -> Backward:
    """Return the loss of a minibatch and its gradients.

    The loss is the mean over rows of weight times cross-entropy.

    Args:
        features: ``[B, D]``.
        labels: of the rows, 0 or 1, ``[B]``.
        weights: of the rows, ``[B]``.
        dropout: factors of the hidden values, 0 where one is dropped, ``[B, H]``; None: no dropout.
    """
    rows, dtype = len(features), features.dtype
    linear = features @ network.hidden_weight.T
    linear += network.hidden_bias
    mean = linear.mean(axis=0)
    normal = np.subtract(linear, mean, out=linear)
    variance = np.einsum("bh,bh->h", normal, normal) / rows
    deviation = np.sqrt(variance + NORM_EPS)
    normal /= deviation
    hidden = normal * network.norm_weight
    hidden += network.norm_bias
    np.maximum(hidden, 0, out=hidden)
    passed = (hidden > 0).astype(dtype)
    if dropout is not None:
        hidden *= dropout
        passed *= dropout
    logits = hidden @ network.output_weight.T + network.output_bias

    loss = float((cross_entropy(logits, labels) * weights).mean())
    to_logits = probabilities(logits)
    to_logits[np.arange(rows), labels] -= 1
    to_logits *= (weights / rows)[:, None].astype(dtype)
    to_normal = to_logits @ network.output_weight
    to_normal *= passed
    norm_bias = to_normal.sum(axis=0)
    norm_weight = np.einsum("bh,bh->h", to_normal, normal)
    # The gradient of batch normalisation (Ioffe and Szegedy 2015, section 3), simplified.
    to_linear = to_normal
    to_linear -= norm_bias / rows
    to_linear -= normal * (norm_weight / rows)
    to_linear *= network.norm_weight / deviation
    gradients = {
        "hidden_weight": to_linear.T @ features,
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
        "output_weight": to_logits.T @ hidden,
        "output_bias": to_logits.sum(axis=0),
    }
    return Backward(loss, gradients, mean, variance)


def probabilities(logits: Array) -> Array:
    """Return the softmax of logits ``[B, 2]``."""
    powers: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Return the cross-entropy of each row, float64 ``[B]``, from logits ``[B, 2]``."""
    exact = logits.astype(np.float64)
    rows = np.arange(len(labels))
    losses: Array = np.logaddexp(0, exact[rows, 1 - labels] - exact[rows, labels])
    return losses


def dropout_factors(
    generator: np.random.Generator, shape: tuple[int, int], probability: float
) -> Array:
    """Return factors float32 that drop values with a probability, and keep the mean of all."""
    kept = generator.random(shape, np.float32) >= probability
    return kept.astype(np.float32) / np.float32(1 - probability)
