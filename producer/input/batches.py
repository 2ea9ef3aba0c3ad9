"""Cutting records into batches: the size of a batch, and where one ends."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.writer import pair_bytes, shard_bytes
from common.job.copies import Copy
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from producer.input.identical import NONE, Chunk, place_of

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


def cut_batches(
    chunks: Iterable[Chunk], budget: Budget, form: OutputForm, spec: ModelSpec
) -> Iterator[CutBatch]:
    """Cut consecutive records into batches of at most ``budget``.

    Copies count in a batch's bytes, as its part of the output will have them.
    """
    bytes_per_record, bytes_per_residue = shard_bytes(form, spec.dim)
    bytes_per_pair = pair_bytes(form)
    longest = form.max_residues if form.overlap is None else sys.maxsize
    letters_per_token = spec.family.letters_per_token
    most_tokens, most_stored = budget.tokens, budget.shard_bytes
    masks, new_tuple = form.masks, tuple.__new__
    batch: list[Record] = []
    copies: list[Copy] = []
    reused: list[Reused] = []
    total = tokens = stored = pairs = 0
    for records, originals in chunks:
        for record, original in zip(records, originals, strict=False):
            row, header, residues = record
            letters = len(residues)
            length = letters if letters < longest else longest
            # ModelSpec.tokens, inlined: calling it for each record would take a tenth of the time.
            more = -(-length // letters_per_token) + SPECIAL_TOKENS
            if masks:
                more *= form.passes(length)
            # A header is stored twice, with up to 4 bytes a letter.
            more_stored = bytes_per_record + bytes_per_residue * length + 8 * len(header)
            if bytes_per_pair:
                more_stored += bytes_per_pair * length**2
            is_known = original != NONE and batch
            full = tokens + more > most_tokens and not is_known
            if batch and (full or stored + more_stored > most_stored):
                size = BatchSize(len(batch), total, tokens, len(copies), len(reused), pairs)
                yield CutBatch(batch, copies, size, reused)
                batch, copies, reused = [], [], []
                total = tokens = stored = pairs = 0
                is_known = False
            if not is_known:
                batch.append(record)
                tokens += more
            elif original >= 0:
                # The constructor of a named tuple takes twice as long.
                copies.append(new_tuple(Copy, (row, original, letters, header)))
            else:
                reused.append(Reused(record, place_of(original)))
            total += length
            if bytes_per_pair:
                pairs += length**2
            stored += more_stored
    if batch:
        size = BatchSize(len(batch), total, tokens, len(copies), len(reused), pairs)
        yield CutBatch(batch, copies, size, reused)
