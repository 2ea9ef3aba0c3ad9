"""The engine: records in, embeddings out, on one device with one loaded model.

A batch is split into packs; each is one forward pass, one pooling, one finiteness check and one
copy to the host. What is not finite is left out of the rows and described beside them.
"""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from common.batchfile import Record
from common.errors import UserError
from common.manifest import OutputForm
from common.messages import Instability
from common.modeltable import resolve_layers
from common.rungs import PRECISION_CODES, Rung, ladder
from common.shard import Embeddings
from workers.backend import compile_blocks, exact_sums
from workers.models.loading import LoadedModel
from workers.models.mixed_precision import apply_fp32, apply_selective_fp32
from workers.packing import Pack, make_packs
from workers.pooling import pool, residues_of
from workers.windows import cut_windows
from workers.work import PackResult, Work, concatenate, look_at_segment

log = logging.getLogger(__name__)

#: Tokens in a pack. On a GPU, enough to fill it with any model; on a CPU, few enough that a
#: layer's activations stay near the cache (measured: 4096 is best for 8M and 35M).
PACK_TOKENS = {"cuda": 50_000, "cpu": 4096}
SMALLEST_PACK_TOKENS = 1024

DTYPES = {Rung.FP16: torch.float16, Rung.BF16: torch.bfloat16, Rung.FP32: torch.float32}
PRECISIONS = {dtype: rung for rung, dtype in DTYPES.items()}

#: What each rung makes of a model with half-precision weights.
VIEWS = {Rung.SELECTIVE_FP32: apply_selective_fp32, Rung.FP32: apply_fp32}


class DeviceLostError(Exception):
    """After a CUDA error every later call fails too, until a new process begins."""


@dataclass(frozen=True)
class Outcome:
    """What the engine made of a batch."""

    embeddings: Embeddings  # the finite rows
    unstable: tuple[Instability, ...]
    precision: Rung  # that computed all of them
    tokens: int  # of the finite rows, as the producer counts them
    seconds: float  # with the device


class Engine:
    """Serves one model on one device. Safe to call from several threads; one computes at a time."""

    def __init__(self, loaded: LoadedModel) -> None:
        weight = next(loaded.model.parameters())
        self.loaded = loaded
        self.device = weight.device
        #: What the weights are in, which is the rung of a batch that asks for none.
        self.precision = PRECISIONS[weight.dtype]
        self.models = {self.precision: loaded.model}
        for rung in ladder(self.precision)[1:]:
            self.models[rung] = VIEWS[rung](loaded.model)
        budget = PACK_TOKENS.get(self.device.type, PACK_TOKENS["cpu"])
        self.pack_tokens = dict.fromkeys(self.models, budget)
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Compile for the GPU, or say why not and go on without: same numbers, less speed."""
        if self.device.type != "cuda":
            return
        letters = "".join(sorted(self.loaded.spec.family.alphabet.letters))
        probe = [Record(0, "", letters), Record(1, "", letters[:5] * 13)]
        form = OutputForm(max_residues=self.loaded.spec.family.max_residues)
        compile_blocks(self.loaded.model)
        try:
            with warnings.catch_warnings():
                # The compiler recommends TF32 where FP32 was asked for.
                warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
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
        rung: Rung | None = None,
        between_packs: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Embed records in the order given.

        Args:
            records: at least one; letters of the model's alphabet.
            form: which vectors of which layers; longer records are cut to ``form.max_residues``,
                or embedded in windows of that size.
            rung: the arithmetic; the model's own if it has no such rung.
            between_packs: is called before every pack; what it raises ends the batch.

        Raises:
            UserError: a layer that the model does not have.
            torch.OutOfMemoryError: not even the smallest pack fits the device.
            DeviceLostError: the device is of no more use to this process.
        """
        precision = rung if rung in self.models else self.precision
        work = self._prepare(records, form, precision)
        with self._lock, exact_sums():
            started = time.perf_counter()
            parts = self._run(work, between_packs)
            seconds = time.perf_counter() - started
        return self._assemble(work, parts, seconds)

    def _prepare(self, records: Sequence[Record], form: OutputForm, precision: Rung) -> Work:
        sequences = [record.residues[: form.embedded(len(record.residues))] for record in records]
        firsts: Sequence[int] = range(len(sequences))
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        if form.overlap is not None:
            sequences, firsts = cut_windows(sequences, form.max_residues, form.overlap)
        return Work(
            records=records,
            lengths=lengths,
            firsts=firsts,
            tokens=self.loaded.tokenize(sequences),
            layers=resolve_layers(form.layers, self.loaded.spec.layers),
            form=form,
            precision=precision,
        )

    def _run(self, work: Work, between_packs: Callable[[], None]) -> list[PackResult]:
        """Run all packs; if one does not fit the device, start again with smaller ones."""
        while True:
            parts = []
            budget = self.pack_tokens[work.precision]
            try:
                for pack in make_packs(work.tokens, budget):
                    between_packs()
                    parts.append(self._run_pack(work, pack))
                return parts
            except torch.OutOfMemoryError:
                # A smaller pack is no help if one record alone is too large for the device.
                if pack.segments == 1 or budget <= SMALLEST_PACK_TOKENS:
                    raise
                self.pack_tokens[work.precision] = max(budget // 2, SMALLEST_PACK_TOKENS)
                log.warning(
                    "Out of device memory: packs in %s are now %d tokens.",
                    *(work.precision, self.pack_tokens[work.precision]),
                )
            except RuntimeError as error:
                if "CUDA error" in str(error):
                    raise DeviceLostError(str(error).splitlines()[0]) from error
                raise
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _run_pack(self, work: Work, pack: Pack) -> PackResult:
        """One forward pass, pooled, checked and copied to the host."""
        ids = torch.from_numpy(pack.ids).to(self.device, non_blocking=True)
        cu_seqlens = torch.from_numpy(pack.cu_seqlens).to(self.device, non_blocking=True)
        model = self.models[work.precision]
        found = model.forward_packed(ids, cu_seqlens, pack.max_seqlen, work.layers)
        hidden = torch.stack([found[layer] for layer in work.layers], dim=1)  # [T, K, D]
        pooled = pool(hidden, cu_seqlens, self.loaded.spec.family)
        unstable = {
            pack.first + segment: look_at_segment(hidden, pack, segment, pooled.mean[segment])
            for segment in np.flatnonzero(~pooled.finite).tolist()
        }
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

    def _assemble(self, work: Work, parts: list[PackResult], seconds: float) -> Outcome:
        """The batch's finite rows in order, and what became of the others."""
        unstable = work.describe({k: v for part in parts for k, v in part.unstable.items()})
        rows_without = {bad.row for bad in unstable}
        finite = np.array([record.row not in rows_without for record in work.records])
        kept = [record for record, good in zip(work.records, finite, strict=True) if good]
        embeddings = Embeddings(
            rows=np.array([record.row for record in kept], dtype=np.int64),
            headers=[record.header for record in kept],
            ids=[record.id for record in kept],
            lengths=work.lengths[finite],
            input_lengths=np.array([len(record.residues) for record in kept], dtype=np.int64),
            precision=np.full(len(kept), PRECISION_CODES[work.precision], dtype=np.uint8),
            pooled={
                name: work.join([getattr(part.pooled, name) for part in parts])[finite]
                for name in work.form.pooled_names
            },
            residues=concatenate([part.residues for part in parts if part.residues is not None])
            if work.form.per_residue
            else None,
        )
        tokens = sum(map(self.loaded.spec.tokens, embeddings.lengths.tolist()))
        return Outcome(embeddings, unstable, work.precision, tokens, seconds)
