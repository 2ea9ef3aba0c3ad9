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
from workers.models.checkpoints import LoadedModel
from workers.models.esm2 import compile_blocks
from workers.packing import Pack, make_packs
from workers.stability import (
    NumericalInstabilityError,
    check_numerical_stability,
    finite_segments,
)

log = logging.getLogger(__name__)

#: Tokens in a pack. On a GPU, enough to fill it with any ESM-2; on a CPU, few enough that a
#: layer's activations stay near the cache (measured: 4096 is best for 8M and 35M).
PACK_TOKENS = {"cuda": 50_000, "cpu": 4096}
SMALLEST_PACK_TOKENS = 1024

DTYPES = {Rung.FP16: torch.float16, Rung.BF16: torch.bfloat16, Rung.FP32: torch.float32}


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
        """
        layers = resolve_layers(form.layers, self.loaded.spec.layers)
        sequences = [record.residues[: form.max_residues] for record in records]
        while True:
            try:
                return self._embed(records, sequences, layers, form, context, between_packs)
            except torch.OutOfMemoryError:
                if self.pack_tokens <= SMALLEST_PACK_TOKENS:
                    raise
                self.pack_tokens //= 2
                log.warning("Out of device memory: packs are now %d tokens.", self.pack_tokens)
            torch.cuda.empty_cache()

    def _embed(
        self,
        records: Sequence[Record],
        sequences: Sequence[str],
        layers: Sequence[int],
        form: OutputForm,
        context: str,
        between_packs: Callable[[], None],
    ) -> Outcome:
        parts: list[_PackResult] = []
        seconds = 0.0
        for pack in make_packs(sequences, self.pack_tokens):
            between_packs()
            with self._lock:
                started = time.perf_counter()
                part = self._run_pack(pack, layers, form, context, records)
                seconds += time.perf_counter() - started
            parts.append(part)
        finite = np.concatenate([part.finite for part in parts])
        kept = [record for record, good in zip(records, finite, strict=True) if good]
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)[finite]
        embeddings = Embeddings(
            rows=np.array([record.row for record in kept], dtype=np.int64),
            headers=[record.header for record in kept],
            ids=[record.id for record in kept],
            lengths=lengths,
            input_lengths=np.array([len(record.residues) for record in kept], dtype=np.int64),
            precision=np.full(len(kept), PRECISION_CODES[self.precision], dtype=np.uint8),
            pooled={
                name: squeeze_layer(np.concatenate([part.pooled[name] for part in parts]))[finite]
                for name in form.pooled_names
            },
            residues=squeeze_layer(np.concatenate([part.residues for part in parts]))
            if form.per_residue
            else None,
        )
        unstable = tuple(bad for part in parts for bad in part.unstable)
        tokens = sum(len(sequence) + SPECIAL_TOKENS for sequence in sequences)
        return Outcome(embeddings, unstable, tokens, seconds)

    @torch.inference_mode()
    def _run_pack(
        self,
        pack: Pack,
        layers: Sequence[int],
        form: OutputForm,
        context: str,
        records: Sequence[Record],
    ) -> "_PackResult":
        """One forward pass, pooled, checked and copied to the host."""
        input_ids = torch.from_numpy(pack.input_ids).to(self.device, non_blocking=True)
        cu_seqlens = torch.from_numpy(pack.cu_seqlens).to(self.device, non_blocking=True)
        found = self.model.forward_packed(input_ids, cu_seqlens, pack.max_seqlen, layers)
        hidden = torch.stack([found[layer] for layer in layers], dim=1)  # [T, K, D]
        pooled = pool(hidden, cu_seqlens)
        # One copy brings the vectors and what decides whether they may be used.
        columns = [pooled.mean, pooled.bos, pooled.finite.float()[:, None, None].expand(-1, 1, 1)]
        host = torch.cat([column.flatten(1) for column in columns], dim=1).cpu().numpy()
        finite = host[:, -1] != 0
        width = (len(layers), self.loaded.spec.dim)
        mean, bos = (half.reshape(-1, *width) for half in np.split(host[:, :-1], 2, axis=1))
        unstable = tuple(
            self._describe(hidden, pooled, pack, int(segment), context, records)
            for segment in np.flatnonzero(~finite)
        )
        residues = self._residues(hidden, pack, finite, form) if form.per_residue else None
        return _PackResult(finite, {"mean": mean, "bos": bos}, residues, unstable)

    def _residues(self, hidden: Tensor, pack: Pack, finite: Array, form: OutputForm) -> Array:
        """The finite segments' residues without ``<cls>`` and ``<eos>``: ``[sum(L), K, D]``."""
        wanted = np.repeat(finite, np.diff(pack.cu_seqlens))
        wanted[pack.cu_seqlens[:-1]] = wanted[pack.cu_seqlens[1:] - 1] = False
        stored: Array = hidden.to(getattr(torch, form.residue_dtype)).cpu().numpy()[wanted]
        if not np.isfinite(stored).all():
            raise UserError(
                f"Residues of layers {form.layers} are too large for {form.residue_dtype}: submit "
                "with --residue-dtype float32."
            )
        return stored

    def _describe(
        self,
        hidden: Tensor,
        pooled: "Pooled",
        pack: Pack,
        segment: int,
        context: str,
        records: Sequence[Record],
    ) -> Instability:
        record = records[pack.first + segment]
        start, end = pack.cu_seqlens[segment : segment + 2]
        name = f"{context} row {record.row} {record.id}"
        try:
            check_numerical_stability(hidden[start:end], name)
            # BF16 and FP32 reach so far that finite terms can have a sum that is not.
            check_numerical_stability(pooled.mean[segment], f"{name}, its mean")
        except NumericalInstabilityError as error:
            log.warning("%s", error)
            return Instability(row=record.row, **vars(error.seen))
        raise AssertionError("a sum over the segment is not finite, but all its terms are")


@dataclass(frozen=True)
class _PackResult:
    finite: Array  # [N] bool
    pooled: dict[str, Array]  # float32 [N, K, D]
    residues: Array | None  # [sum(L), K, D] of the finite segments
    unstable: tuple[Instability, ...]


@dataclass(frozen=True)
class Pooled:
    mean: Tensor  # [N, K, D] FP32, over residues
    bos: Tensor  # [N, K, D] FP32, at <cls>
    finite: Tensor  # [N] bool, over all tokens


def pool(hidden: Tensor, cu_seqlens: Tensor) -> Pooled:
    """Pool each segment of ``hidden`` ``[T, K, D]`` in FP32, and check it on the way."""
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    # Every segment falls into <cls>, residues and <eos>; one reduction sums all three.
    bounds = torch.stack((starts, starts + 1, ends - 1), dim=1).flatten()
    offsets = torch.cat((bounds, ends[-1:]))
    sums = torch.segment_reduce(hidden.float(), "sum", offsets=offsets, axis=0)
    sums = sums.view(-1, 3, *hidden.shape[1:])  # [N, 3, K, D]
    residues = (ends - starts - 2)[:, None, None]
    return Pooled(sums[:, 1] / residues, sums[:, 0], finite_segments(sums))


def squeeze_layer(values: Array) -> Array:
    """``[n, 1, D]`` to ``[n, D]``: a single layer has no axis of its own."""
    return values[:, 0] if values.shape[1] == 1 else values
