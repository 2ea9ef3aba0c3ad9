"""The rows of a file of embeddings, in blocks that fit into memory."""

from contextlib import AbstractContextManager
from typing import Any, get_args

import numpy as np

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.checksums import CHECKSUM, checksums
from common.embeddings.file import EmbeddingFile, EmbeddingFileError
from common.embeddings.writer import pair_bytes, shard_bytes
from common.job.output_form import (
    CLASS_LOGITS,
    PAIR_SCORES,
    POOLED,
    RESIDUE_SCORES,
    SCORES,
    Include,
    OutputForm,
)
from producer.output.contents import Block, Names, Rows

#: Bytes of vectors in a block, unless a single row has more.
BLOCK_BYTES = 16 * 2**20

#: The most rows of a block: their ids and headers are texts in memory.
BLOCK_ROWS = 20_000

#: Lengths that are read at once to find the blocks.
LENGTHS = 2**20


class FileRows(Rows):
    """The rows of an HDF5 file that ``fetch`` wrote, also of one of an earlier version."""

    ahead = 1

    def __init__(self, file: EmbeddingFile) -> None:
        """Find the blocks of an open file.

        Raises:
            EmbeddingFileError: it is damaged, or has no vectors.
        """
        self._file = file
        self._checksums: dict[str, int] = {}
        self.attributes = file.attributes
        self.records = len(file)
        self.origins = file.origins
        with self._errors("the shapes"):
            self._find_form()
            self._find_blocks()

    def _find_form(self) -> None:
        datasets = self._file.datasets
        include: list[Include] = [name for name in POOLED if name in datasets]
        if "residues" in datasets:
            include.append("per_residue")
        scores = [name for name in get_args(Include) if name in SCORES and name in datasets]
        if not include and not scores:
            raise EmbeddingFileError(
                f"{self._file.path} has no vectors, and no scores: none of {', '.join(POOLED)} and "
                "residues.",
                path=self._file.path,
            )
        self.dim, layers = int(self.attributes.get("dim", 0)), 1
        if include:
            vectors = datasets[include[0] if include[0] != "per_residue" else "residues"]
            self.dim = int(vectors.shape[-1])
            layers = 1 if vectors.ndim == 2 else int(vectors.shape[1])
        known = [int(layer) for layer in self.attributes.get("layers", range(-layers, 0))]
        self.pooled_dtype = "float32"
        if include and include[0] != "per_residue":
            self.pooled_dtype = datasets[include[0]].dtype.name
        kept: Any = next(
            (datasets[n].dtype.name for n in ("residues", *PAIR_SCORES) if n in datasets), "float32"
        )
        self.form = OutputForm(
            include=(*include, *scores),
            layers=tuple(known),
            residue_dtype=kept,
            classes=next((datasets[n].shape[1] for n in CLASS_LOGITS if n in datasets), None),
            max_residues=1,  # not known, and of no use: the lengths are
        )
        self.residues = next(
            (len(datasets[name]) for name in ("residues", *RESIDUE_SCORES) if name in datasets), 0
        )

        self.pairs = next((len(datasets[name]) for name in PAIR_SCORES if name in datasets), 0)

    def _find_blocks(self) -> None:
        """Cut the rows into blocks."""
        vector = np.dtype(self.pooled_dtype).itemsize * self.dim * len(self.form.layers)
        per_row = vector * len(self.form.pooled_names)
        has_residues = self.form.has_residues or self.form.contacts
        most = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, per_row)))
        per_residue, per_pair = shard_bytes(self.form, self.dim)[1], pair_bytes(self.form)
        self._starts, self._first_residues, self._first_pairs = [0], [0], [0]
        stored = total = pairs = 0
        for start in range(0, self.records, LENGTHS):
            lengths = self._file.datasets["lengths"][start : start + LENGTHS]
            if not has_residues:
                total += int(lengths.sum())
                continue
            for row, length in enumerate(lengths.tolist(), start):
                rows = row - self._starts[-1]
                more = length * per_residue + length**2 * per_pair
                if rows == most or (rows and stored + more > BLOCK_BYTES):
                    self._starts.append(row)
                    self._first_residues.append(total)
                    self._first_pairs.append(pairs)
                    stored = 0
                stored += more
                total += length
                pairs += length**2
        if not has_residues:
            self._starts = list(range(0, self.records, most)) or [0]
        if not self.form.has_residues:
            self.residues = total
        self.blocks = len(self._starts) if self.records else 0
        self._starts.append(self.records)
        self._first_residues.append(total)

    def block(self, index: int, form: OutputForm) -> Block:
        here = self._slice(index)

        def column(name: str, otherwise: str) -> Array:
            found: Array = self._column(name if name in self._file.datasets else otherwise)[here]
            return found

        with self._errors("a block of rows"):
            lengths = column("lengths", "lengths")
            first = self._first_residues[index] if self.form.has_residues else 0
            letters = slice(first, first + int(lengths.sum()))
            first = self._first_pairs[index] if self.form.contacts else 0
            pairs = slice(first, first + int((lengths**2).sum()))
            places = {**dict.fromkeys(RESIDUE_SCORES, letters), **dict.fromkeys(PAIR_SCORES, pairs)}
            part = Embeddings(
                rows=column("rows", "rows"),
                ids=list(column("ids", "ids")),
                headers=list(column("headers", "ids")),
                lengths=lengths,
                input_lengths=column("input_lengths", "lengths"),
                precision=column("precision", "precision").astype(np.uint8),
                pooled={name: self._column(name)[here] for name in form.pooled_names},
                residues=self._column("residues")[letters] if form.per_residue else None,
                scores={name: self._column(name)[places.get(name, here)] for name in form.scores},
            )
        return part, ()

    def names(self, index: int) -> Names:
        here = self._slice(index)
        with self._errors("ids"):
            ids = list(self._column("ids")[here])
            return Names(ids, self._column("lengths")[here], self._column("rows")[here])

    def end(self) -> None:
        """Do nothing: the file is whoever opened it's to close."""

    def check(self, index: int, part: Embeddings) -> None:
        self._checksums = checksums(part, self._checksums)

    def check_end(self) -> None:
        """Compare each dataset with the checksum that it was written with, if it has one.

        Raises:
            EmbeddingFileError: one was changed.
        """
        for name, found in self._checksums.items():
            dataset = self._file.datasets.get(name)
            expected = None if dataset is None else dataset.attrs.get(CHECKSUM)
            if expected is not None and int(expected) != found:
                raise EmbeddingFileError(
                    f"{self._file.path}: {name} has another checksum than when it was written. "
                    "The file is damaged; if it is a job's, fetch it again.",
                    path=self._file.path,
                )

    def _slice(self, index: int) -> slice:
        return slice(self._starts[index], self._starts[index + 1])

    def _column(self, name: str) -> Any:
        dataset = self._file.datasets[name]
        return dataset.asstr() if name in ("ids", "headers") else dataset

    def _errors(self, name: str) -> AbstractContextManager[None]:
        return self._file.errors(name)
