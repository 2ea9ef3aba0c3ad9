"""What an output holds: rows in blocks, and what is known of them before the first."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.origins import Origins
from common.embeddings.writer import pair_bytes, score_bytes
from common.job.output_form import RECORD_SCORES, RESIDUE_SCORES, OutputForm
from common.wire.messages import Instability

Dtype = Literal["float16", "float32"]

#: Rows, and those of them that are quarantined.
Block = tuple[Embeddings, tuple[Instability, ...]]

#: Bytes of a record's ids, header and numbers in a file, as most have.
RECORD_BYTES = 280


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file is to hold, known before its first row."""

    form: OutputForm
    pooled_dtype: str  # of mean and bos
    records: int
    residues: int  # of all records
    pairs: int = 0  # pairs of each record's residues, if contacts are kept
    dim: int
    attributes: Mapping[str, Any]
    #: Where rows come from, if there are several sources.
    origins: Origins | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one vector: ``(D,)``, or ``(K, D)`` for K > 1 layers."""
        return self.form.vector_shape(self.dim)

    @property
    def layers(self) -> list[int]:
        """The numbers of the layers, counted from 0."""
        return [int(layer) for layer in self.attributes.get("layers", self.form.layers)]

    @property
    def bytes(self) -> int:
        """An estimate of the bytes of a file of binary numbers."""
        numbers = len(self.form.layers) * self.dim
        pooled = numbers * len(self.form.pooled_names) * np.dtype(self.pooled_dtype).itemsize
        per_residue = numbers * np.dtype(self.form.residue_dtype).itemsize
        residues = self.residues * per_residue if self.form.per_residue else 0
        scores = self.records * score_bytes(self.form, RECORD_SCORES)
        scores += self.residues * score_bytes(self.form, RESIDUE_SCORES)
        scores += self.pairs * pair_bytes(self.form)
        return self.records * (RECORD_BYTES + pooled) + residues + scores


class Names(NamedTuple):
    """What rows are called, without their vectors."""

    ids: list[str]
    lengths: Array  # letters that are embedded
    rows: Array


class Rows(ABC):
    """Embeddings in blocks of rows, in the order of the input."""

    form: OutputForm  # everything that there is
    pooled_dtype: str
    records: int
    residues: int
    #: Sum of the squares of all lengths, if contacts are kept.
    pairs: int = 0
    dim: int
    attributes: Mapping[str, Any]
    #: Where rows come from, if there are several sources.
    origins: Origins | None = None
    #: The number of blocks.
    blocks: int
    #: Blocks that are read ahead of the one being written.
    ahead: int

    @abstractmethod
    def block(self, index: int, form: OutputForm) -> Block:
        """Return the rows of a block, with the vectors of ``form``, and its quarantined rows.

        Called in threads, for several blocks at once.
        """

    @abstractmethod
    def names(self, index: int) -> Names:
        """Return what the rows of a whole block are called."""

    def announced(self) -> Iterator[Embeddings] | None:
        """Yield the rows of each block without vectors, in order; blocks may come in any order.

        None: they come in their order.
        """
        return None

    def begin(self, chosen: Mapping[int, Collection[int]] | None) -> Iterable[int]:
        """Return the blocks to be read: in their order, unless they were ``announced``.

        Args:
            chosen: the rows that are wanted, by their blocks; None: all.
        """
        return range(self.blocks) if chosen is None else sorted(chosen)

    def whole(self, index: int, part: Embeddings, quarantined: tuple[Instability, ...]) -> Block:
        """Return all rows of a block that ``block`` gave; called in the order of ``begin``."""
        return part, quarantined

    @abstractmethod
    def end(self) -> None:
        """Give back what was taken by ``begin``."""

    @abstractmethod
    def check(self, index: int, part: Embeddings) -> None:
        """Check a block that was read; called in the order of ``begin``."""

    @abstractmethod
    def check_end(self) -> None:
        """Check what can be checked only after all blocks were."""
