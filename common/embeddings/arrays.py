"""The embeddings of some records, as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.job.output_form import PAIR_SCORES, RECORD_SCORES, RESIDUE_SCORES, OutputForm
from common.job.records import Record, first_word
from common.rungs import PRECISION_CODES

Array = NDArray[Any]


def not_included(name: str) -> UserError:
    """Return the error of asking for what was not kept."""
    return UserError(f"These embeddings have no {name}: add it to include when embedding.")


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Rows with their vectors.

    ``W``, the shape of one vector, is ``OutputForm.vector_shape``: ``(D,)``, or ``(K, D)`` for
    K > 1 layers.
    """

    rows: NDArray[np.int64]  # [n], position in the input
    headers: list[str]  # n
    ids: list[str]  # n, each header's first word
    lengths: NDArray[np.int64]  # [n], residues embedded
    input_lengths: NDArray[np.int64]  # [n], residues in the input
    precision: NDArray[np.uint8]  # [n], PRECISION_CODES
    pooled: Mapping[str, Array]  # "mean", "bos", "max", "std": float32 [n, *W]
    residues: Array | None  # [sum(lengths), *W]
    #: RECORD_SCORES float32 ``[n, ...]``, RESIDUE_SCORES float32 ``[sum(lengths), ...]``,
    #: PAIR_SCORES ``[sum(lengths ** 2), ...]``.
    scores: Mapping[str, Array] = field(default_factory=dict)
    #: The CRC-32 of some of these, as ``checksums`` returns it, if they were read from a shard.
    checksums: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def columns(self) -> dict[str, Any]:
        """Everything with one entry per row, by the name of its dataset."""
        return {
            "rows": self.rows,
            "ids": self.ids,
            "headers": self.headers,
            "lengths": self.lengths,
            "input_lengths": self.input_lengths,
            "precision": self.precision,
            **self.pooled,
            **{name: values for name, values in self.scores.items() if name in RECORD_SCORES},
        }

    @property
    def of_residues(self) -> dict[str, Array]:
        """Everything with one entry per residue, by the name of its dataset."""
        vectors = {} if self.residues is None else {"residues": self.residues}
        scores = {name: values for name, values in self.scores.items() if name in RESIDUE_SCORES}
        return vectors | scores

    @property
    def of_pairs(self) -> dict[str, Array]:
        """Everything with one entry per pair of a row's residues, by the name of its dataset."""
        return {name: values for name, values in self.scores.items() if name in PAIR_SCORES}

    @property
    def ragged(self) -> dict[str, Array]:
        """Everything of which rows have more entries the longer they are."""
        return self.of_residues | self.of_pairs

    @classmethod
    def of_records(
        cls,
        records: Sequence[Record],
        form: OutputForm,
        *,
        precision: str,
        pooled: Mapping[str, Array],
        residues: Array | None,
        scores: Mapping[str, Array] | None = None,
    ) -> Self:
        """Return the vectors of records, all computed in one precision, with the records' ids."""
        input_lengths = np.array([len(record.residues) for record in records], np.int64)
        return cls(
            rows=np.array([record.row for record in records], np.int64),
            headers=[record.header for record in records],
            ids=[record.id for record in records],
            lengths=form.embedded_lengths(input_lengths),
            input_lengths=input_lengths,
            precision=np.full(len(records), PRECISION_CODES[precision], np.uint8),
            pooled=pooled,
            residues=residues,
            scores=scores or {},
        )

    @classmethod
    def without_vectors(cls, records: Sequence[Record], form: OutputForm, dim: int) -> Self:
        """Return rows of NaN with precision ``none``."""
        shape = form.vector_shape(dim)
        lengths = form.embedded_lengths(np.array([len(r.residues) for r in records], np.int64))
        count, letters = len(records), int(lengths.sum())
        return cls.of_records(
            records,
            form,
            precision="none",
            pooled={n: np.full((count, *shape), np.nan, np.float32) for n in form.pooled_names},
            residues=np.full((letters, *shape), np.nan, form.residue_dtype)
            if form.per_residue
            else None,
            scores={
                name: np.full(
                    (entries_of(name, lengths), *form.score_shape(name)),
                    np.nan,
                    form.score_dtype(name),
                )
                for name in form.scores
            },
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self], form: OutputForm, dim: int) -> Self:
        """Return the rows of all parts in order; without parts, no rows of the right shape."""
        return cls.joined([cls.without_vectors([], form, dim), *parts])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts in order, with what the first part has; there is one."""
        first = parts[0]
        residues = [part.residues for part in parts if part.residues is not None]
        return cls(
            rows=np.concatenate([part.rows for part in parts]),
            headers=[header for part in parts for header in part.headers],
            ids=[id_ for part in parts for id_ in part.ids],
            lengths=np.concatenate([part.lengths for part in parts]),
            input_lengths=np.concatenate([part.input_lengths for part in parts]),
            precision=np.concatenate([part.precision for part in parts]),
            pooled={
                name: np.concatenate([part.pooled[name] for part in parts]) for name in first.pooled
            },
            residues=None if first.residues is None else np.concatenate(residues),
            scores={
                name: np.concatenate([part.scores[name] for part in parts]) for name in first.scores
            },
        )

    @classmethod
    def in_order(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts by their numbers; there is a part."""
        whole = cls.joined(parts)
        return whole.take(np.argsort(whole.rows, kind="stable"))

    @classmethod
    def overlay(
        cls, parts: Sequence[Self], records: Sequence[Record], form: OutputForm, dim: int
    ) -> Self:
        """Return one row per record: a part's, or NaN with precision ``none`` if no part has it.

        Raises:
            KeyError: a part has a row that is not among the records.
            ValueError: a part has another number of residues than its records.
        """
        whole = cls.without_vectors(records, form, dim)
        position = {record.row: index for index, record in enumerate(records)}
        for part in parts:
            places = np.array([position[row] for row in part.rows.tolist()], np.int64)
            whole.precision[places] = part.precision
            for name, values in part.pooled.items():
                whole.pooled[name][places] = values
            if whole.residues is not None and part.residues is not None:
                whole.residues[whole._entries("residues", places)] = part.residues
            for name, values in part.scores.items():
                whole.scores[name][whole._entries(name, places)] = values
        return whole

    def select(self, mask: NDArray[np.bool_]) -> Self:
        """Return the rows where ``mask`` ``[n]`` is true; nothing is copied if all are."""
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def take(self, places: NDArray[np.int64]) -> Self:
        """Return the rows at some positions, in their order, which may occur several times."""
        # Without residues there may be very many letters.
        letters = self._entries("residues", places) if self.of_residues else places
        return replace(
            self,
            rows=self.rows[places],
            headers=[self.headers[place] for place in places.tolist()],
            ids=[self.ids[place] for place in places.tolist()],
            lengths=self.lengths[places],
            input_lengths=self.input_lengths[places],
            precision=self.precision[places],
            pooled={name: values[places] for name, values in self.pooled.items()},
            residues=None if self.residues is None else self.residues[letters],
            scores={
                name: values[letters if name in RESIDUE_SCORES else self._entries(name, places)]
                for name, values in self.scores.items()
            },
            checksums={},
        )

    def with_names(self, rows: NDArray[np.int64], headers: list[str]) -> Self:
        """Return the same vectors under other rows and headers."""
        ids = [first_word(header) for header in headers]
        return replace(self, rows=rows, headers=headers, ids=ids, checksums={})

    def with_vectors(self, pooled: Mapping[str, Array], residues: Array | None) -> Self:
        """Return the same rows with other vectors."""
        return replace(self, pooled=pooled, residues=residues, checksums={})

    def residues_of(self, position: int, name: str = "residues") -> Array:
        """Return the vectors of one row's residues ``[L, *W]``, or another score of theirs.

        Raises:
            UserError: they were not included.
        """
        if name not in self.of_residues:
            raise not_included("per_residue" if name == "residues" else name)
        end = int(self._ends[position])
        values: Array = self.of_residues[name][end - int(self.lengths[position]) : end]
        return values

    def pairs_of(self, position: int, name: str) -> Array:
        """Return what each pair of one row's residues has ``[L, L]``.

        Raises:
            UserError: they were not included.
        """
        if name not in self.of_pairs:
            raise not_included(name)
        length, end = int(self.lengths[position]), int(self._pair_ends[position])
        values: Array = self.of_pairs[name][end - length**2 : end].reshape(length, length)
        return values

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where the residues of each row end ``[n]``."""
        ends: NDArray[np.int64] = np.cumsum(self.lengths)
        return ends

    @cached_property
    def _pair_ends(self) -> NDArray[np.int64]:
        """Where the pairs of residues of each row end ``[n]``."""
        ends: NDArray[np.int64] = np.cumsum(self.lengths**2)
        return ends

    def _entries(self, name: str, places: Array) -> Array:
        """Return where the entries of one kind lie, of the rows at some positions."""
        if name in PAIR_SCORES:
            counts = self.lengths[places] ** 2
            return entries(self._pair_ends[places] - counts, counts)
        if name == "residues" or name in RESIDUE_SCORES:
            return entries(self._ends[places] - self.lengths[places], self.lengths[places])
        return places


def entries_of(name: str, lengths: Array) -> int:
    """Return how many entries rows of some lengths have of one kind."""
    if name in PAIR_SCORES:
        return int((lengths**2).sum())
    is_of_residues = name == "residues" or name in RESIDUE_SCORES
    return int(lengths.sum()) if is_of_residues else len(lengths)


def entries(starts: Array, lengths: Array) -> Array:
    """Return the numbers of all entries of some stretches, one stretch after the other."""
    first_outputs = np.cumsum(lengths) - lengths
    found: Array = np.arange(lengths.sum()) + np.repeat(starts - first_outputs, lengths)
    return found
