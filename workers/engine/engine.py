"""The engine: records in, embeddings out, on one device with one loaded model.

A batch is split into packs; each is one forward pass, one pooling, one finiteness check and one
copy to the host. The next is queued before the last is done: the device never waits. What is not
finite is left out of the rows and described beside them.
"""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from common.embeddings.arrays import Embeddings
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import resolve_layers
from common.rungs import PRECISION_CODES, Rung, ladder
from common.wire.messages import Instability
from workers.engine.in_flight import PackInFlight, PackResult
from workers.engine.packing import Pack, make_packs
from workers.engine.prepared import PreparedBatch, made_up_batch
from workers.engine.windows import cut_windows
from workers.models.fused import apply_fused, can_fuse
from workers.models.loading import LoadedModel
from workers.models.mixed_precision import apply_fp32, apply_selective_fp32
from workers.runtime import trace, watchdog
from workers.runtime.device import exact_sums, host_buffer
from workers.runtime.memory import SMALLEST_PACK_TOKENS, fastest_pack_tokens, pack_tokens_that_fit

log = logging.getLogger(__name__)

DTYPES = {Rung.FP16: torch.float16, Rung.BF16: torch.bfloat16, Rung.FP32: torch.float32}
PRECISIONS = {dtype: rung for rung, dtype in DTYPES.items()}

#: What each rung makes of a model with half-precision weights.
VIEWS = {Rung.SELECTIVE_FP32: apply_selective_fp32, Rung.FP32: apply_fp32}

#: Tokens of a segment in packs that are only tried: short, to fill them nearly whole.
TRIAL_LENGTH = 64

#: Packs of a batch that are queued while another is computed.
PACKS_AHEAD = 1

#: Seconds after which a device hangs that is still at one pack: on a GPU, packs take seconds, and
#: minutes only if its kernels are compiled first. On a CPU, one of a large model takes long.
GPU_PACK_SECONDS, CPU_PACK_SECONDS = 300.0, 7200.0


class DeviceLostError(Exception):
    """After a CUDA error every later call fails too, until a new process begins."""


#: How errors of the device begin, PyTorch's and Triton's.
DEVICE_ERROR = re.compile(r"CUDA error|Triton Error \[CUDA\]")


@contextmanager
def device_errors() -> Iterator[None]:
    """Tell errors after which the device is of no more use from all others.

    Raises:
        torch.OutOfMemoryError: whoever ran out of memory.
        DeviceLostError: any other error of the device.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if DEVICE_ERROR.search(str(error)) is None:
            raise
        first_line = str(error).splitlines()[0]
        if "out of memory" in first_line:
            raise torch.OutOfMemoryError(first_line) from error
        raise DeviceLostError(first_line) from error


@dataclass(frozen=True)
class Outcome:
    """What the engine made of a batch."""

    embeddings: Embeddings  # the finite rows
    unstable: tuple[Instability, ...]
    precision: Rung  # that computed all of them
    tokens: int  # of the finite rows, as the producer counts them
    seconds: float  # with the device


class Engine:
    """Serves one model on one device. Safe to call from several threads, which take turns."""

    def __init__(self, loaded: LoadedModel) -> None:
        weight = next(loaded.model.parameters())
        self.loaded = loaded
        self.device = weight.device
        #: What the weights are in, which is the rung of a batch that asks for none.
        self.precision = PRECISIONS[weight.dtype]
        first = apply_fused(loaded.model) if can_fuse(loaded.model) else loaded.model
        self.models = {self.precision: first}
        for rung in ladder(self.precision)[1:]:
            self.models[rung] = VIEWS[rung](loaded.model)
        tokens = fastest_pack_tokens(loaded.spec, self.device)
        self.pack_tokens = dict.fromkeys(self.models, tokens)
        on_gpu = self.device.type == "cuda"
        self._pack_seconds = GPU_PACK_SECONDS if on_gpu else CPU_PACK_SECONDS
        self._lock = threading.Lock()
        #: Packs whose memory is in use, of all threads.
        self._slots = threading.Semaphore(1 + PACKS_AHEAD)

    def warm_up(self) -> None:
        """On a GPU: have all kernels compiled, and see how large packs may be."""
        if self.device.type != "cuda":
            return

        def run(tokens: int) -> None:
            # As many packs as are under way at once, and another, of what is left.
            segments, rest = divmod((1 + PACKS_AHEAD) * tokens, TRIAL_LENGTH)
            lengths = [TRIAL_LENGTH] * segments + ([rest] if rest else [])
            work = made_up_batch(self.loaded.spec, lengths, self.precision)
            self._run_packs(work, tokens, lambda: None)

        tokens = pack_tokens_that_fit(run, self.pack_tokens[self.precision])
        self.pack_tokens = dict.fromkeys(self.models, tokens)
        log.info("Packs have up to %s tokens.", f"{tokens:,}")

    def run_pack(self, work: PreparedBatch) -> PackResult:
        """Run a batch as one pack, whatever its size."""
        [result] = self._run_packs(work, len(work.tokens.ids), lambda: None)
        return result

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
        with trace.span("tokenise"):
            work = self._prepare(records, form, precision)
        parts = self._run(work, between_packs)
        with trace.span("assemble"):
            return self._assemble(work, parts)

    @device_errors()
    def _prepare(
        self, records: Sequence[Record], form: OutputForm, precision: Rung
    ) -> PreparedBatch:
        sequences = [record.residues[: form.embedded(len(record.residues))] for record in records]
        firsts: Sequence[int] = range(len(sequences))
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        if form.overlap is not None:
            sequences, firsts = cut_windows(sequences, form.max_residues, form.overlap)
        layers = resolve_layers(form.layers, self.loaded.spec.layers)
        residues = None
        if form.per_residue:
            shape = int(lengths.sum()), len(layers), self.loaded.spec.dim
            dtype = getattr(torch, form.residue_dtype)
            residues = host_buffer(*shape, dtype=dtype, device=self.device)
        return PreparedBatch(
            records=records,
            lengths=lengths,
            firsts=firsts,
            tokens=self.loaded.tokenize(sequences),
            layers=layers,
            form=form,
            precision=precision,
            residues=residues,
        )

    @device_errors()
    def _run(self, work: PreparedBatch, between_packs: Callable[[], None]) -> list[PackResult]:
        """Run all packs; if one does not fit the device, start again with smaller ones."""
        while True:
            budget = self.pack_tokens[work.precision]
            try:
                return self._run_packs(work, budget, between_packs)
            except torch.OutOfMemoryError:
                # A smaller pack is no help if one record alone is too large for the device.
                if budget <= SMALLEST_PACK_TOKENS or work.tokens.lengths.max() >= budget:
                    raise
                smaller = max(budget // 2, SMALLEST_PACK_TOKENS)
                if smaller < self.pack_tokens[work.precision]:
                    self.pack_tokens[work.precision] = smaller
                    log.warning(
                        "Out of device memory: packs in %s are now %d tokens.",
                        *(work.precision, smaller),
                    )
            torch.cuda.empty_cache()

    @device_errors()
    def _run_packs(
        self, work: PreparedBatch, budget: int, between_packs: Callable[[], None]
    ) -> list[PackResult]:
        running: deque[PackInFlight] = deque()
        results = []
        try:
            with trace.span("wait for others"):
                self._lock.acquire()
            try:
                for pack in make_packs(work.tokens, budget):
                    between_packs()
                    running.append(self._queue(work, pack))
                    if len(running) > PACKS_AHEAD:
                        results.append(self._finish(running))
            finally:
                self._lock.release()
            # Meanwhile the next batch is queued behind this one's last packs.
            while running:
                results.append(self._finish(running))
            return results
        finally:
            for _ in running:
                self._slots.release()

    def _queue(self, work: PreparedBatch, pack: Pack) -> PackInFlight:
        self._slots.acquire()
        try:
            with watchdog.stage("launch", self._pack_seconds), exact_sums():
                return PackInFlight(self.models[work.precision], work, pack)
        except BaseException:
            self._slots.release()
            raise

    def _finish(self, running: deque[PackInFlight]) -> PackResult:
        """Wait for the first of ``running``, and take it out."""
        with watchdog.stage("wait for device", self._pack_seconds):
            result = running[0].result()
        running.popleft()
        self._slots.release()
        return result

    def _assemble(self, work: PreparedBatch, parts: list[PackResult]) -> Outcome:
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
            residues=work.finite_residues(finite),
        )
        tokens = sum(map(self.loaded.spec.tokens, embeddings.lengths.tolist()))
        seconds = sum(part.seconds for part in parts)
        return Outcome(embeddings, unstable, work.precision, tokens, seconds)
