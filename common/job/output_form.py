"""The output form: which vectors of a record are kept."""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from common.alphabet import ESM2_TOKENS

Include = Literal[
    "mean",
    "per_residue",
    "bos",
    "max",
    "std",
    "logits",
    "entropy",
    "pseudo_perplexity_unmasked",
    "pseudo_perplexity",
    "class_logits",
    "residue_class_logits",
    "contacts",
]

#: Names of the vectors of a record: of all its tokens that are pooled, and of its first token.
POOLED: tuple[Include, ...] = ("mean", "bos", "max", "std")

#: In the shape of a score: as many as the model has classes, ``OutputForm.classes``.
CLASSES = -1

#: Names of what the heads of ESM-2 give, with the shape of one entry: an entry for each residue, or
#: for each record.
RESIDUE_SCORES: dict[str, tuple[int, ...]] = {
    "logits": (len(ESM2_TOKENS),),
    "entropy": (),
    "residue_class_logits": (CLASSES,),
}
RECORD_SCORES: dict[str, tuple[int, ...]] = {
    "pseudo_perplexity_unmasked": (),
    "pseudo_perplexity": (),
    "class_logits": (CLASSES,),
}
#: The same for an entry for each pair of a record's residues, row by row: L * L of them.
PAIR_SCORES: dict[str, tuple[int, ...]] = {"contacts": ()}
SCORES = RESIDUE_SCORES | RECORD_SCORES | PAIR_SCORES

#: Names of what a classification head gives: of a record, or of each residue. The others are of the
#: language-model head.
CLASS_LOGITS: tuple[Include, ...] = ("class_logits", "residue_class_logits")

#: What is done to a record that is longer than ``max_residues``.
Long = Literal["error", "truncate", "window"]

#: What is done to a record with a letter that is not in the alphabet.
Unknown = Literal["error", "x", "skip"]

#: What is done to the gaps of a record, - and . between its letters.
Gaps = Literal["keep", "strip", "error"]

#: What is done to a record without a sequence.
Empty = Literal["error", "skip"]

#: What is done to a record that is shorter than ``min_length``.
Short = Literal["error", "skip"]

#: What is done to all these kinds of bad records.
Invalid = Literal["error", "skip", "x"]

#: What an input consists of; auto: what the model is for, unless most letters say otherwise.
Molecule = Literal["auto", "protein", "dna", "rna"]

ResidueDtype = Literal["float16", "float32"]


def as_tuple(values: Any) -> tuple[Any, ...]:
    """Return one value, or several, as a tuple."""
    one = isinstance(values, str) or not isinstance(values, Iterable)
    return (values,) if one else tuple(values)


class OutputForm(BaseModel):
    """The vectors that a job keeps: which ones, of which layers, in which type."""

    # What a newer version added would be another output: it cannot be ignored.
    model_config = ConfigDict(frozen=True, extra="forbid")

    include: tuple[Include, ...] = ("mean",)
    layers: tuple[int, ...] = (-1,)  # negative: counted from the last, as in esm-extract
    residue_dtype: ResidueDtype = "float16"
    max_residues: PositiveInt  # longer records are truncated to this, or split into windows of it
    overlap: int | None = None  # fewest letters that two windows share; None: no windows
    classes: PositiveInt | None = None  # of the model's classification head, if it is included

    @field_validator("include", "layers")
    @classmethod
    def not_empty_and_unique(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{values} is empty or has duplicates")
        return values

    @model_validator(mode="after")
    def windows_can_be_pooled(self) -> Self:
        if self.overlap is not None and (self.has_residues or self.contacts):
            raise ValueError(
                "per-residue vectors and scores cannot be combined with windows, which overlap: "
                "set long to truncate or error"
            )
        if self.overlap is not None and self.class_logits:
            raise ValueError(
                "class logits are of whole records, and cannot be combined with windows: set long "
                "to truncate or error"
            )
        if self.overlap is not None and not 0 <= self.overlap < self.max_residues:
            raise ValueError(
                f"windows of {self.max_residues:,} cannot overlap by {self.overlap:,}: give a "
                "smaller overlap"
            )
        return self

    @model_validator(mode="after")
    def classes_are_known(self) -> Self:
        if self.class_logits and self.classes is None:
            raise ValueError(f"{self.class_logits} need the number of classes")
        return self

    @model_serializer(mode="wrap")
    def without_classes(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions do not know, unless it is used."""
        values: dict[str, Any] = serialise(self)
        if self.classes is None:
            values.pop("classes", None)
        return values

    def embedded(self, letters: int) -> int:
        """Return how many of a record's letters are embedded."""
        return min(letters, self.max_residues) if self.overlap is None else letters

    def embedded_lengths(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the same of many records."""
        return np.minimum(lengths, self.max_residues) if self.overlap is None else lengths

    def passes(self, letters: int) -> int:
        """Return how often the model computes a record with so many letters embedded.

        Once, and for the exact pseudo-perplexity once more for each letter that is masked; each of
        a record's windows counts as a whole one.
        """
        return 1 + min(letters, self.max_residues) if self.masks else 1

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """Return the shape of one vector: ``(D,)``, or ``(K, D)`` for K > 1 layers."""
        return (dim,) if len(self.layers) == 1 else (len(self.layers), dim)

    @property
    def pooled_names(self) -> tuple[Include, ...]:
        """Names of the datasets with one row per record."""
        return tuple(name for name in self.include if name in POOLED)

    @property
    def scores(self) -> tuple[Include, ...]:
        """Names of what the heads give."""
        return tuple(name for name in self.include if name in SCORES)

    @property
    def lm_scores(self) -> tuple[Include, ...]:
        """Names of what the language-model head gives."""
        return tuple(
            name for name in self.scores if name not in CLASS_LOGITS and name not in PAIR_SCORES
        )

    @property
    def class_logits(self) -> Include | None:
        """The name of what the classification head gives, if it is included."""
        return next((name for name in self.include if name in CLASS_LOGITS), None)

    def score_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one entry of a score."""
        return tuple(self.classes or 0 if size == CLASSES else size for size in SCORES[name])

    def score_dtype(self, name: str) -> str:
        """Return the type of a score: of contacts, which are the most, that of residues."""
        return self.residue_dtype if name in PAIR_SCORES else "float32"

    @property
    def contacts(self) -> bool:
        """Whether the probabilities of contacts are kept, an entry for each pair of residues."""
        return "contacts" in self.include

    @property
    def masks(self) -> bool:
        """Whether each residue is masked once."""
        return "pseudo_perplexity" in self.include

    @property
    def has_residues(self) -> bool:
        """Whether anything is kept that has an entry for each residue."""
        return self.per_residue or any(name in RESIDUE_SCORES for name in self.include)

    @property
    def more_pooled(self) -> tuple[Include, ...]:
        """Names of what is pooled only where it is included."""
        return tuple(name for name in self.include if name in ("max", "std"))

    @property
    def per_residue(self) -> bool:
        return "per_residue" in self.include
