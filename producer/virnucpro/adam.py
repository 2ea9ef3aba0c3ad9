"""The Adam optimiser."""

from collections.abc import Mapping
from math import sqrt

import numpy as np

from common.embeddings.arrays import Array

#: Decay of the two moments' running means, and what is added to the root of the second: the
#: values of Kingma and Ba (2015), and PyTorch's defaults.
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

#: Values that are updated at once: so many of five arrays stay in the cache of a core.
BLOCK = 2**14


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) of arrays that it changes in place.

    Attributes:
        parameters: the arrays by name, contiguous.
        rate: the learning rate.
        steps: how many steps were made.
    """

    def __init__(self, parameters: Mapping[str, Array], rate: float) -> None:
        self.parameters = parameters
        self.rate = rate
        self.steps = 0
        self._first = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._second = {name: np.zeros_like(array) for name, array in parameters.items()}

    def step(self, gradients: Mapping[str, Array]) -> None:
        """Change all parameters by their gradients, which are overwritten."""
        self.steps += 1
        rate = self.rate / (1 - BETA1**self.steps)
        scale = 1 / sqrt(1 - BETA2**self.steps)
        for name, parameter in self.parameters.items():
            arrays = (parameter, gradients[name], self._first[name], self._second[name])
            a, b, c, d = (array.reshape(-1) for array in arrays)
            for start in range(0, parameter.size, BLOCK):
                part = slice(start, start + BLOCK)
                update(a[part], b[part], c[part], d[part], rate, scale)


def update(
    parameter: Array, gradient: Array, first: Array, second: Array, rate: float, scale: float
) -> None:
    """Update one block of a parameter and its moments, in place, and use up its gradient.

    Args:
        parameter: values ``[n]``.
        gradient: ``[n]``.
        first: running mean of the gradient, ``[n]``.
        second: running mean of the gradient's square, ``[n]``.
        rate: learning rate over the bias correction of the first moment.
        scale: root of the inverse bias correction of the second moment.
    """
    scratch = gradient * (1 - BETA1)
    first *= BETA1
    first += scratch
    np.square(gradient, out=gradient)
    gradient *= 1 - BETA2
    second *= BETA2
    second += gradient
    np.sqrt(second, out=scratch)
    scratch *= scale
    scratch += EPSILON
    np.divide(first, scratch, out=scratch)
    scratch *= rate
    parameter -= scratch
