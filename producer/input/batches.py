"""Cutting records into batches: the size of a batch, and where one ends."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.writer import pair_bytes, shard_bytes
from common.job.copy_lines import Copy
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from producer.input.identical import NONE, RESIDUES, TOGETHER, Chunk, place_of

Integers = NDArray[np.int64]

HEADER = itemgetter(1)  # of a record

#: Operations per second of a whole forward pass: on an H200 in FP16, and on two CPU cores in FP32.
#: Only the size of a batch depends on them.
GPU_FLOPS, CPU_FLOPS = 4e14, 1e11

#: Seconds that a batch should take: enough that the cost of its message, claim and files is
#: negligible, and few enough that progress is smooth and little is lost with a worker.
BATCH_SECONDS = {"gpu": 1.0, "cpu": 2.0}

#: Number of batches per worker that a small input is cut into, so that all workers have work to the
#: end.
BATCHES_PER_WORKER = 8

SMALLEST_BATCH_TOKENS, LARGEST_BATCH_TOKENS = 1_000, 3_000_000

MAX_SHARD_BYTES = 256 * 10**6


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The largest size of a batch; a single record beyond it is a batch of its own."""

    tokens: int
    shard_bytes: int = MAX_SHARD_BYTES


def batch_tokens(
    spec: ModelSpec, *, on_gpu: bool, workers: int, input_bytes: int | None = None
) -> int:
    """Return the default number of tokens in a batch.

    Args:
        spec: the model, for its operations per token: two for each weight.
        on_gpu: whether the workers compute on GPUs.
        workers: number of workers.
        input_bytes: approximate size of the FASTA; None if unknown.
    """
    flops, seconds = (
        (GPU_FLOPS, BATCH_SECONDS["gpu"]) if on_gpu else (CPU_FLOPS, BATCH_SECONDS["cpu"])
    )
    tokens = flops * seconds / (2 * spec.parameters)
    if input_bytes is not None:
        tokens = min(tokens, input_bytes / (BATCHES_PER_WORKER * max(1, workers)))
    return int(min(max(tokens, SMALLEST_BATCH_TOKENS), LARGEST_BATCH_TOKENS))


class BatchSize(NamedTuple):
    """The size of a batch."""

    records: int  # that are computed
    residues: int  # letters that are embedded, those of copies too
    tokens: int  # as ModelSpec.tokens counts them, in all passes over what is computed
    copies: int = 0
    reused: int = 0
    pairs: int = 0  # of the letters of one record, if contacts are kept

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return self.records + self.copies + self.reused

    def plus(self, other: "BatchSize") -> "BatchSize":
        """Return the size of both together."""
        return BatchSize(*map(sum, zip(self, other, strict=True)))


#: The size of a batch without records.
NOTHING = BatchSize(0, 0, 0)


class Reused(NamedTuple):
    """A record that an earlier job has computed."""

    record: Record
    place: int  # among the rows of earlier jobs


class CutBatch(NamedTuple):
    """The records of a batch, of which the first is computed."""

    records: list[Record]
    copies: list[Copy]
    size: BatchSize
    reused: list[Reused]


class Stretch(NamedTuple):
    """Consecutive records that are of the same batch, of some that were looked at together."""

    begins: bool  # whether the batch begins with them, or has records before
    start: int  # position of the first
    end: int  # position after the last
    size: BatchSize


class Cutter:
    """Finds where batches of consecutive records end.

    A record begins a batch if it would make the one before larger than ``budget``. One that is
    known, for its letters are those of an earlier record, adds no tokens; but the first of a batch
    is computed in any case. Copies count in a batch's bytes, as its part of the output will have
    them.
    """

    def __init__(self, budget: Budget, form: OutputForm, spec: ModelSpec) -> None:
        self._budget = budget
        self._form = form
        self._letters_per_token = spec.family.letters_per_token
        self._bytes_per_record, self._bytes_per_residue = shard_bytes(form, spec.dim)
        self._bytes_per_pair = pair_bytes(form)
        self._tokens = self._stored = 0  # of the last batch, which the next records may belong to
        self._is_open = False

    def cut(self, letters: Integers, headers: Integers, originals: Integers) -> list[Stretch]:
        """Return the stretches of the next records ``[n]``, which follow all earlier ones.

        Args:
            letters: of each record.
            headers: letters of each record's header.
            originals: as ``Chunk`` has them.
        """
        lengths = self._embedded(letters)
        tokens = -(-lengths // self._letters_per_token) + SPECIAL_TOKENS
        if self._form.masks:
            tokens *= np.fromiter(map(self._form.passes, lengths.tolist()), np.int64, len(lengths))
        pairs = lengths**2 if self._bytes_per_pair else np.zeros_like(lengths)
        # A header is stored twice, with up to 4 bytes a letter.
        stored = self._bytes_per_record + self._bytes_per_residue * lengths + 8 * headers
        stored += self._bytes_per_pair * pairs
        computed = originals == NONE
        starts = self._starts(sums(np.where(computed, tokens, 0)), sums(stored), tokens)
        computed[starts] = True
        tokens = np.where(computed, tokens, 0)
        copies = ~computed & (originals >= 0)
        counts = np.stack([computed, lengths, tokens, copies, ~computed & ~copies, pairs])
        return self._stretches(starts, counts, stored)

    def _embedded(self, letters: Integers) -> Integers:
        if self._form.overlap is not None:
            return letters
        return np.minimum(letters, self._form.max_residues)

    def _starts(self, tokens: Integers, stored: Integers, first: Integers) -> list[int]:
        """Return the positions of records that begin a batch.

        Args:
            tokens: before each record, of those that are not known ``[n + 1]``.
            stored: bytes before each record ``[n + 1]``.
            first: tokens of each record, if a batch begins with it.
        """
        most_tokens, most_stored = self._budget.tokens, self._budget.shard_bytes
        found: list[int] = []
        # What the batch has, less what is before its first position here.
        has_tokens, has_stored, after = self._tokens, self._stored, 0
        if not self._is_open and len(first):
            found, has_tokens, after = [0], int(first[0] - tokens[1]), 1
        while True:
            # A record that is known never is too much for the tokens, though they may be already.
            room = max(most_tokens - has_tokens, int(tokens[after]))
            full = int(np.searchsorted(tokens, room, side="right"))
            heavy = int(np.searchsorted(stored, most_stored - has_stored, side="right"))
            start = max(after, min(full, heavy) - 1)
            if start >= len(first):
                return found
            found.append(start)
            has_tokens = int(first[start] - tokens[start + 1])
            has_stored, after = -int(stored[start]), start + 1

    def _stretches(self, starts: list[int], counts: Integers, stored: Integers) -> list[Stretch]:
        number = len(stored)
        bounds = [*([] if starts[:1] == [0] else [0]), *starts]
        if not number:
            return []
        sizes = np.add.reduceat(counts, bounds, axis=1).T.tolist()
        begins = set(starts)
        found = [
            Stretch(start in begins, start, end, BatchSize(*size))
            for start, end, size in zip(bounds, [*bounds[1:], number], sizes, strict=True)
        ]
        last = found[-1]
        if last.begins:
            self._tokens = self._stored = 0
        self._tokens += last.size.tokens
        self._stored += int(stored[last.start :].sum())
        self._is_open = True
        return found


def sums(numbers: Integers) -> Integers:
    """Return the sum of all numbers before each one, and of all ``[n + 1]``."""
    found = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=found[1:])
    return found


def cut_batches(
    chunks: Iterable[Chunk], budget: Budget, form: OutputForm, spec: ModelSpec
) -> Iterator[CutBatch]:
    """Cut consecutive records into batches of at most ``budget``; see ``Cutter``."""
    cutter = Cutter(budget, form, spec)
    batch = CutBatch([], [], NOTHING, [])
    for records, originals in together(chunks):
        letters = np.fromiter(map(len, map(RESIDUES, records)), np.int64, len(records))
        headers = np.fromiter(map(len, map(HEADER, records)), np.int64, len(records))
        for stretch in cutter.cut(letters, headers, originals):
            if stretch.begins:
                if batch.records:
                    yield batch
                batch = CutBatch([], [], NOTHING, [])
            part = slice(stretch.start, stretch.end)
            told = told_apart(records[part], originals[part], begins=stretch.begins)
            batch.records.extend(told.computed)
            batch.copies.extend(told.copies)
            batch.reused.extend(told.reused)
            batch = batch._replace(size=batch.size.plus(stretch.size))
    if batch.records:
        yield batch


def together(chunks: Iterable[Chunk]) -> Iterator[tuple[list[Record], Integers]]:
    """Yield the same records, as many at once as are looked up together."""
    for records, originals in chunks:
        rest, more = iter(records), iter(originals)
        while some := list(islice(rest, TOGETHER)):
            yield some, np.fromiter(islice(more, len(some)), np.int64, len(some))


class Told(NamedTuple):
    """Records told apart by what becomes of them."""

    computed: list[Record]
    copies: list[Copy]
    reused: list[Reused]


def told_apart(records: list[Record], originals: Integers, *, begins: bool) -> Told:
    """Tell consecutive records of a batch apart.

    Args:
        begins: whether the first is the first of the batch, which is computed in any case.
    """
    if (originals == NONE).all():
        return Told(records, [], [])
    computed, copies, reused = told = Told([], [], [])
    new_tuple = tuple.__new__
    for record, original in zip(records, originals.tolist(), strict=True):
        if original == NONE or (begins and not computed):
            computed.append(record)
        elif original >= 0:
            row, header, residues = record
            # The constructor of a named tuple takes twice as long.
            copies.append(new_tuple(Copy, (row, original, len(residues), header)))
        else:
            reused.append(Reused(record, place_of(original)))
    return told
