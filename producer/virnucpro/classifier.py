"""VirNucPro's classifier, in NumPy: two layers over the joined features of a frame."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

Floats = NDArray[np.float32]

#: What each class is called: score1 is of the first, score2 of the second.
CLASSES = ("others", "virus")

#: What ``torch.nn.BatchNorm1d`` adds to the variance.
NORM_EPS = 1e-5

#: Bytes of hidden values that are in memory at once.
BLOCK_BYTES = 32 << 20

#: The name of each array in a state dict of VirNucPro's ``MLPClassifier``, and its dimensions.
STATE: Mapping[str, tuple[str, str]] = {
    "hidden_weight": ("hidden_layer.weight", "HD"),
    "hidden_bias": ("hidden_layer.bias", "H"),
    "norm_weight": ("bn1.weight", "H"),
    "norm_bias": ("bn1.bias", "H"),
    "running_mean": ("bn1.running_mean", "H"),
    "running_var": ("bn1.running_var", "H"),
    "output_weight": ("output_layer.weight", "CH"),
    "output_bias": ("output_layer.bias", "C"),
}


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Linear(D → H), BatchNorm, ReLU, Linear(H → 2), softmax, in float32.

    Source: ``MLPClassifier`` of VirNucPro; its dropout does nothing when it predicts.
    """

    hidden_weight: Floats  # [H, D]
    hidden_bias: Floats  # [H]
    norm_weight: Floats  # [H]
    norm_bias: Floats  # [H]
    running_mean: Floats  # [H]
    running_var: Floats  # [H]
    output_weight: Floats  # [2, H]
    output_bias: Floats  # [2]
    norm_eps: float = NORM_EPS
    #: Bases of the chunks that it was trained on; None: its file does not say.
    chunk: int | None = None
    #: The models whose features it was trained on, that of DNA first; None: likewise.
    models: tuple[str, str] | None = None

    @classmethod
    def of_state(cls, state: Mapping[str, Any], place: str, **more: Any) -> "Classifier":
        """Return the classifier of a state dict.

        Args:
            state: arrays of numbers by their names in VirNucPro's module.
            place: its name in messages.
            more: the other fields.

        Raises:
            UserError: an array is missing, or has another shape, or a number that is not finite.
        """
        sizes = {"C": len(CLASSES)}
        found: dict[str, Any] = {}
        for field, (name, dimensions) in STATE.items():
            if name not in state:
                raise UserError(
                    f"{place} is no classifier of VirNucPro: it has no {name}, but "
                    f"{', '.join(sorted(map(str, state))[:5]) or 'nothing'}.",
                    path=place,
                )
            array = np.asarray(state[name])
            expected = tuple(sizes.get(d, n) for d, n in zip(dimensions, array.shape, strict=False))
            if array.shape != expected or len(dimensions) != array.ndim:
                raise UserError(
                    f"{place}: {name} has the shape {list(array.shape)}, which does not fit: "
                    f"VirNucPro's classifier has {len(CLASSES)} classes, and one width.",
                    path=place,
                )
            sizes.update(zip(dimensions, array.shape, strict=True))
            with np.errstate(over="ignore"):  # looked for below
                found[field] = np.array(array, np.float32)
            if not np.isfinite(found[field]).all():
                raise UserError(f"{place}: {name} contains NaN or Inf.", path=place)
        if found["running_var"].min(initial=0) < 0:
            raise UserError(f"{place}: bn1.running_var has a negative variance.", path=place)
        return cls(**found, **more)

    def state(self) -> dict[str, Floats]:
        """Return the arrays by their names in VirNucPro's module."""
        return {name: getattr(self, field) for field, (name, _) in STATE.items()}

    @property
    def features(self) -> int:
        """The width of a frame's features, D."""
        return int(self.hidden_weight.shape[1])

    @property
    def hidden(self) -> int:
        """The width of the hidden layer, H."""
        return int(self.hidden_weight.shape[0])

    @property
    def fingerprint(self) -> str:
        """A hash of all numbers, in hexadecimal digits, whatever file they came from."""
        hashed = hashlib.sha256(str(self.norm_eps).encode())
        for name, array in self.state().items():
            hashed.update(f"{name} {array.shape}".encode())
            hashed.update(array.tobytes())
        return hashed.hexdigest()[:16]

    def scores(self, features: Floats) -> Floats:
        """Return the score of each class.

        Args:
            features: ``[n, D]``, float32. A row with NaN has scores of NaN.

        Returns:
            ``[n, 2]``, float32; the scores of a row have the sum 1.
        """
        rows = max(1, BLOCK_BYTES // (4 * self.hidden))
        found = np.empty((len(features), len(CLASSES)), np.float32)
        for start in range(0, len(features), rows):
            found[start : start + rows] = softmax(self._logits(features[start : start + rows]))
        return found

    def _logits(self, features: Floats) -> Floats:
        hidden = features @ self.hidden_weight.T
        hidden += self.hidden_bias
        hidden -= self.running_mean
        hidden *= self.norm_weight / np.sqrt(self.running_var + np.float32(self.norm_eps))
        hidden += self.norm_bias
        np.maximum(hidden, 0, out=hidden)
        return np.asarray(hidden @ self.output_weight.T + self.output_bias, np.float32)


def softmax(logits: Floats) -> Floats:
    """Return the softmax of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
