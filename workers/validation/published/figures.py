"""The published figures: vectors of three proteins that the authors' code gave with real weights.

``figures.json`` has them with their origin. ``python -m benchmarks.published`` made it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from pydantic import Base64Bytes

from common.job.output_form import Include
from common.model_specs import MODELS, ModelSpec
from common.wire.messages import Document

#: The vectors of each protein, in the order of the figures' second axis.
VECTORS: tuple[Include, ...] = ("mean", "bos")


class PublishedModel(Document):
    """What is published of one model, for the N proteins of all."""

    name: str  # as in MODELS, once that has it
    repository: str  # of the checkpoint, on the Hugging Face hub
    revision: str
    license: str  # of the checkpoint
    code: tuple[str, ...]  # that computed the vectors: repositories at commits
    arithmetic: str
    sha256: dict[str, str]  # of each published file of weights, by its name
    tolerance: float  # largest relative difference of a vector; docs/numerics.md says why
    mean: Base64Bytes  # over residues, last layer: [N, D] FP32, little-endian
    bos: Base64Bytes  # the same of the first token

    def vectors(self, proteins: int) -> NDArray[np.float32]:
        """Return the vectors ``[N, 2, D]`` of N proteins: ``mean`` and ``bos``."""
        arrays = [np.frombuffer(getattr(self, name), dtype="<f4") for name in VECTORS]
        return np.stack([array.reshape(proteins, -1) for array in arrays], axis=1)


class Published(Document):
    """Everything that is published, of all models."""

    source: str
    license: str  # of the figures
    sequences: tuple[str, ...]  # N
    tokens: tuple[tuple[int, ...], ...]  # of each sequence, <cls> and <eos> among them
    models: tuple[PublishedModel, ...]

    def of(self, spec: ModelSpec) -> PublishedModel | None:
        """Return what is published of the model of a shape, whatever its name; None if nothing."""
        for model in self.models:
            known = MODELS.get(model.name)
            if known is not None and replace(spec, name=known.name) == known:
                return model
        return None

    @property
    def names(self) -> Sequence[str]:
        """The models that can be compared."""
        return [model.name for model in self.models if model.name in MODELS]


@cache
def read_published() -> Published:
    """Return the figures that come with this package."""
    file = files("workers.validation.published") / "figures.json"
    return Published.model_validate_json(file.read_bytes())
