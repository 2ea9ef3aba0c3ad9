"""The engine: records in, embeddings out, on one device with one loaded model.

A batch is split into packs; each is one forward pass, one pooling, one finiteness check and one
copy to the host. What is not finite is left out of the rows and described beside them.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.batchfile import Record
from common.errors import UserError
from common.manifest import OutputForm
from common.messages import Instability
from common.modeltable import resolve_layers
from common.rungs import PRECISION_CODES, Rung
from common.shard import Array, Embeddings
from workers.models.esm2 import compile_blocks
from workers.models.loading import LoadedModel
from workers.packing import Pack, make_packs
from workers.pooling import Pooled, pool, residues_of
from workers.stability import NumericalInstabilityError, check_numerical_stability

log = logging.getLogger(__name__)

#: Tokens in a pack. On a GPU, enough to fill it with any ESM-2; on a CPU, few enough that a
#: layer's activations stay near the cache (measured: 4096 is best for 8M and 35M).
PACK_TOKENS = {"cuda": 50_000, "cpu": 4096}
SMALLEST_PACK_TOKENS = 1024

DTYPES = {Rung.FP16: torch.float16, Rung.BF16: torch.bfloat16, Rung.FP32: torch.float32}


class DeviceLostError(Exception):
    """After a CUDA error every later call fails too, until a new process begins."""


@dataclass(frozen=True)
class Outcome:
    """What the engine made of a batch."""

    embeddings: Embeddings  # the finite rows
    unstable: tuple[Instability, ...]
    tokens: int
    seconds: float  # with the device


class Engine:
    """Serves one model on one device. Safe to call from several threads; one computes at a time."""

    def __init__(self, loaded: LoadedModel, precision: Rung) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.precision = precision
        self.device = next(self.model.parameters()).device
        self.pack_tokens = PACK_TOKENS.get(self.device.type, PACK_TOKENS["cpu"])
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Compile for the GPU, or say why not and go on without: same numbers, less speed."""
        if self.device.type != "cuda":
            return
        probe = [Record(0, "", "MKTAYIAKQR"), Record(1, "", "GAVLIPFMW" * 7)]
        form = OutputForm(max_residues=self.loaded.spec.max_residues)
        compile_blocks(self.model)
        try:
            self.embed(probe, form)
        except Exception as error:
            log.warning("torch.compile does not work here (%s): running without it.", error)
            torch.compiler.set_stance("force_eager")
            self.embed(probe, form)

    def embed(
        self,
        records: Sequence[Record],
        form: OutputForm,
        *,
        context: str = "batch",
        between_packs: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Embed records in the order given.

        Args:
            records: at least one; letters of the model's alphabet.
            form: which vectors of which layers; longer records are cut to ``form.max_residues``.
            context: names the batch in messages.
            between_packs: is called before every pack; what it raises ends the batch.

        Raises:
            UserError: a layer that the model does not have.
            torch.OutOfMemoryError: not even the smallest pack fits the device.
            DeviceLostError: the device is of no more use to this process.
        """
        work = Work(
            records=records,
            sequences=[record.residues[: form.max_residues] for record in records],
            layers=resolve_layers(form.layers, self.loaded.spec.layers),
            form=form,
            context=context,
        )
        with self._lock:
            started = time.perf_counter()
            parts = self._run(work, between_packs)
            seconds = time.perf_counter() - started
        return self._assemble(work, parts, seconds)

    def _run(self, work: "Work", between_packs: Callable[[], None]) -> list["PackResult"]:
        """Run all packs; if one does not fit the device, start again with smaller ones."""
        while True:
            parts = []
            try:
                for pack in make_packs(work.sequences, self.pack_tokens):
                    between_packs()
                    parts.append(self._run_pack(work, pack))
                return parts
            except torch.OutOfMemoryError:
                # A smaller pack is no help if one record alone is too large for the device.
                if pack.segments == 1 or self.pack_tokens <= SMALLEST_PACK_TOKENS:
                    raise
                self.pack_tokens = max(self.pack_tokens // 2, SMALLEST_PACK_TOKENS)
                log.warning("Out of device memory: packs are now %d tokens.", self.pack_tokens)
            except RuntimeError as error:
                if "CUDA error" in str(error):
                    raise DeviceLostError(str(error).splitlines()[0]) from error
                raise
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run_pack(self, work: "Work", pack: Pack) -> "PackResult":
        """One forward pass, pooled, checked and copied to the host."""
        input_ids = torch.from_numpy(pack.input_ids).to(self.device, non_blocking=True)
        cu_seqlens = torch.from_numpy(pack.cu_seqlens).to(self.device, non_blocking=True)
        found = self.model.forward_packed(input_ids, cu_seqlens, pack.max_seqlen, work.layers)
        hidden = torch.stack([found[layer] for layer in work.layers], dim=1)  # [T, K, D]
        pooled = pool(hidden, cu_seqlens)
        unstable = tuple(
            describe(work, pack, int(segment), hidden, pooled.mean[segment])
            for segment in np.flatnonzero(~pooled.finite)
        )
        residues = None
        if work.form.per_residue:
            dtype = getattr(torch, work.form.residue_dtype)
            residues = residues_of(hidden, pack, pooled.finite, dtype)
            if not np.isfinite(residues).all():
                raise UserError(
                    f"Residues of layers {work.form.layers} are too large for "
                    f"{work.form.residue_dtype}: submit with --residue-dtype float32."
                )
        return PackResult(pooled, residues, unstable)

    def _assemble(self, work: "Work", parts: list["PackResult"], seconds: float) -> Outcome:
        """The batch's finite rows in order, and what became of the others."""
        finite = np.concatenate([part.pooled.finite for part in parts])
        kept = [record for record, good in zip(work.records, finite, strict=True) if good]
        lengths = np.array([len(sequence) for sequence in work.sequences], dtype=np.int64)
        embeddings = Embeddings(
            rows=np.array([record.row for record in kept], dtype=np.int64),
            headers=[record.header for record in kept],
            ids=[record.id for record in kept],
            lengths=lengths[finite],
            input_lengths=np.array([len(record.residues) for record in kept], dtype=np.int64),
            precision=np.full(len(kept), PRECISION_CODES[self.precision], dtype=np.uint8),
            pooled={
                name: joined([getattr(part.pooled, name) for part in parts])[finite]
                for name in work.form.pooled_names
            },
            residues=joined([part.residues for part in parts if part.residues is not None])
            if work.form.per_residue
            else None,
        )
        return Outcome(
            embeddings,
            unstable=tuple(bad for part in parts for bad in part.unstable),
            tokens=int(lengths.sum()) + SPECIAL_TOKENS * len(lengths),
            seconds=seconds,
        )


@dataclass(frozen=True)
class Work:
    """A batch as the engine sees it."""

    records: Sequence[Record]
    sequences: Sequence[str]  # as long as the model takes them
    layers: Sequence[int]  # resolved: from 0
    form: OutputForm
    context: str


@dataclass(frozen=True)
class PackResult:
    """What one forward pass gave."""

    pooled: Pooled
    residues: Array | None  # [sum(L), K, D] of the finite segments
    unstable: tuple[Instability, ...]


def describe(work: Work, pack: Pack, segment: int, hidden: Tensor, mean: Array) -> Instability:
    """What is not finite about a segment; logs the message that a user should see."""
    record = work.records[pack.first + segment]
    start, end = pack.cu_seqlens[segment : segment + 2]
    name = f"{work.context} row {record.row} {record.id}"
    try:
        check_numerical_stability(hidden[start:end], name)
        # BF16 and FP32 reach so far that finite terms can have a sum that is not.
        check_numerical_stability(torch.from_numpy(mean), f"{name}, its mean")
    except NumericalInstabilityError as error:
        log.warning("%s", error)
        return Instability(row=record.row, **vars(error.seen))
    raise AssertionError("a sum over the segment is not finite, but all its terms are")


def joined(parts: Sequence[Array]) -> Array:
    """Parts ``[n, K, D]`` one after another; a single layer has no axis of its own."""
    values = np.concatenate(parts)
    return values[:, 0] if values.shape[1] == 1 else values
