"""The engine: records in, embeddings out, on one device with one loaded model.

A batch is split into packs; each is one forward pass, one pooling, one finiteness check and one
copy to the host. The next is queued before the last is done, so that the device never waits. Rows
that are not finite are left out of the embeddings and described in the outcome.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from common.embeddings.arrays import Array, Embeddings
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import resolve_layers
from common.rungs import Rung, ladder
from common.wire.messages import Instability, NonFinite
from workers.engine.device import device_errors
from workers.engine.flight import Flight, PackDone, Timed
from workers.engine.in_flight import PackInFlight
from workers.engine.masked import MaskedInFlight, mean_surprise
from workers.engine.packing import Pack
from workers.engine.prepared import (
    PreparedBatch,
    residue_buffers,
    synthetic_batch,
    tokens_in_all,
)
from workers.engine.windows import cut_windows
from workers.models.attention.choice import choice_of
from workers.models.classifier import LazyClassifier
from workers.models.contact_head import load_contact_head, observe_attention
from workers.models.encoder import Encoder, view_of
from workers.models.fused import fastest
from workers.models.heads import Lazy
from workers.models.lm_head import load_lm_head
from workers.models.loading import LoadedModel
from workers.models.mixed_precision import apply_fp32, apply_selective_fp32
from workers.runtime import metrics, trace, watchdog
from workers.runtime.device import exact_sums
from workers.runtime.memory import (
    SMALLEST_PACK_TOKENS,
    fastest_pack_tokens,
    pack_tokens_that_fit,
    packs_ahead,
)

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Timed)

#: Dtype of the weights by the model's precision.
DTYPES = {Rung.FP16: torch.float16, Rung.BF16: torch.bfloat16, Rung.FP32: torch.float32}
PRECISIONS = {dtype: rung for rung, dtype in DTYPES.items()}

#: Views of a model with half-precision weights, by rung.
VIEWS = {Rung.SELECTIVE_FP32: apply_selective_fp32, Rung.FP32: apply_fp32}

#: Tokens per segment in trial packs: few, so that segments fill a pack almost exactly.
TRIAL_LENGTH = 64

#: Seconds for one pack after which the device counts as hung. On a GPU a pack takes seconds, or
#: minutes if kernels are compiled first; on a CPU a large model may take an hour.
GPU_PACK_SECONDS, CPU_PACK_SECONDS = 300.0, 7200.0


@dataclass(frozen=True)
class Outcome:
    """The result of a batch."""

    embeddings: Embeddings  # the finite rows
    unstable: tuple[Instability, ...]
    precision: Rung  # of all rows
    tokens: int  # of the finite rows, as the producer counts tokens
    seconds: float  # of the device's time


class Engine:
    """One model on one device. Several threads may call it; they take turns."""

    def __init__(self, loaded: LoadedModel) -> None:
        weight = next(loaded.model.parameters())
        self.loaded = loaded
        self.device = weight.device
        #: Precision of the weights, and the rung of a batch that does not name one.
        self.precision = PRECISIONS[weight.dtype]
        self.models = {self.precision: fastest(loaded.model)}
        for rung in ladder(self.precision)[1:]:
            self.models[rung] = VIEWS[rung](loaded.model)
        tokens = fastest_pack_tokens(loaded.spec, self.device)
        self.pack_tokens = dict.fromkeys(self.models, tokens)
        on_gpu = self.device.type == "cuda"
        self._pack_seconds = GPU_PACK_SECONDS if on_gpu else CPU_PACK_SECONDS
        self._lock = threading.Lock()
        self._lm_head = Lazy(load_lm_head, loaded)
        self._classifier = LazyClassifier(loaded)
        self._contact_head = Lazy(load_contact_head, loaded)
        self._observed: dict[Rung, Encoder] = {}  # views whose attention can be seen
        #: Packs that are queued while another is computed.
        self.packs_ahead = packs_ahead(loaded.spec, self.device)
        #: Slots for the packs of all threads that hold device memory.
        self._slots = threading.Semaphore(1 + self.packs_ahead)

    @property
    def attention_kernel(self) -> str:
        """The name of the kernel that computes attention in the model's own precision."""
        return self.models[self.precision].attention_kernel

    def warm_up(self) -> None:
        """On a GPU, compile all kernels and find the size of packs that fits."""
        if self.device.type != "cuda":
            return

        def run(tokens: int) -> None:
            # As many packs as are in flight at once, and one of the rest.
            segments, rest = divmod((1 + self.packs_ahead) * tokens, TRIAL_LENGTH)
            lengths = [TRIAL_LENGTH] * segments + ([rest] if rest else [])
            work = synthetic_batch(self.loaded.spec, lengths, self.precision)
            self.run_packs(work, tokens)

        tokens = pack_tokens_that_fit(run, self.pack_tokens[self.precision])
        self.pack_tokens = dict.fromkeys(self.models, tokens)
        log.info("Packs have up to %s tokens.", f"{tokens:,}")
        weight = next(self.loaded.model.parameters())
        found = choice_of(self.loaded.spec, self.device, weight.dtype)
        log.info("Kernel of attention: %s (%s).", found.kernel, found.why)

    def run_packs(self, work: PreparedBatch, tokens: int) -> None:
        """Run a batch in packs of at most ``tokens``, as ``embed`` does."""
        self._run_packs(PackInFlight, work, tokens, lambda: None)

    def embed(
        self,
        records: Sequence[Record],
        form: OutputForm,
        *,
        rung: Rung | None = None,
        between_packs: Callable[[], None] = lambda: None,
        on_pack: Callable[[PackDone], None] = lambda _pack: None,
    ) -> Outcome:
        """Embed records in the order given.

        Args:
            records: at least one, in letters of the model's alphabet.
            form: which vectors of which layers; longer records are cut to ``form.max_residues``,
                or embedded in windows of that size.
            rung: the arithmetic; the model's own precision if it has no such rung.
            between_packs: called before every pack; an error that it raises ends the batch.
            on_pack: called after every pack. If packs are too large for the device, the batch
                begins again.

        Raises:
            UserError: the model does not have a layer of ``form``, or residues are beyond the range
                of ``form.residue_dtype``.
            torch.OutOfMemoryError: not even the smallest pack fits the device.
            DeviceLostError: this process can no longer use the device.
        """
        precision = rung if rung in self.models else self.precision
        with trace.span("tokenise"):
            work = self._prepare(records, form, precision)
        parts = self._run(PackInFlight, work, between_packs, on_pack)
        unstable = {k: v for part in parts for k, v in part.unstable.items()}
        seconds = sum(part.seconds for part in parts)
        masked = None
        if form.masks:
            copies = self._run(MaskedInFlight, work.masking(unstable), between_packs, on_pack)
            masked, more = mean_surprise(copies, work.tokens)
            unstable |= more
            seconds += sum(part.seconds for part in copies)
        with trace.span("assemble"):
            vectors = [part.pooled.vectors for part in parts]
            return self._assemble(work, vectors, masked, unstable, seconds)

    @device_errors()
    def _prepare(
        self, records: Sequence[Record], form: OutputForm, precision: Rung
    ) -> PreparedBatch:
        letters = np.array([len(record.residues) for record in records], np.int64)
        lengths = form.embedded_lengths(letters)
        pairs = zip(records, lengths.tolist(), strict=True)
        sequences = [record.residues[:length] for record, length in pairs]
        firsts: Sequence[int] = range(len(sequences))
        if form.overlap is not None:
            sequences, firsts = cut_windows(sequences, form.max_residues, form.overlap)
        layers = resolve_layers(form.layers, self.loaded.spec.layers)
        buffers = residue_buffers(form, lengths, self.loaded.spec.dim, self.device)
        return PreparedBatch(
            records=records,
            lengths=lengths,
            firsts=firsts,
            tokens=self.loaded.tokenize(sequences),
            layers=layers,
            form=form,
            precision=precision,
            residues=buffers.pop("residues", None),
            scores=buffers,
            head=self._lm_head.get() if form.lm_scores else None,
            classifier=self._classifier.get(form.class_logits, form.classes),
            contacts=self._contact_head.get() if form.contacts else None,
        )

    @device_errors()
    def _run(
        self,
        flight: type[Flight[R]],
        work: PreparedBatch,
        between_packs: Callable[[], None],
        on_pack: Callable[[PackDone], None],
    ) -> list[R]:
        """Run all packs; if one does not fit the device, start again with smaller packs."""
        while True:
            budget = self.pack_tokens[work.precision]
            try:
                return self._run_packs(flight, work, budget, between_packs, on_pack)
            except torch.OutOfMemoryError:
                # Smaller packs do not help if one segment alone is too large.
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
        self,
        flight: type[Flight[R]],
        work: PreparedBatch,
        budget: int,
        between_packs: Callable[[], None],
        on_pack: Callable[[PackDone], None] = lambda _pack: None,
    ) -> list[R]:
        running: deque[Flight[R]] = deque()
        results: list[R] = []
        done = len(work.tokens.ids) if work.to_mask else 0  # those without masks are before

        def finish_first() -> None:
            nonlocal done
            tokens = len(running[0].pack.ids)
            results.append(self._finish(running))
            done += tokens
            on_pack(PackDone(tokens, budget, results[-1].seconds, work.tokens_in_all, done))

        try:
            with trace.span("wait for others"), metrics.stage("wait"):
                self._lock.acquire()
            with metrics.stage("compute"):
                try:
                    for pack in flight.packs(work, budget):
                        between_packs()
                        running.append(self._queue(flight, work, pack))
                        if len(running) > self.packs_ahead:
                            finish_first()
                finally:
                    self._lock.release()
                # Another thread's batch is queued behind the last packs of this one.
                while running:
                    finish_first()
            return results
        finally:
            for _ in running:
                self._slots.release()

    def _queue(self, flight: type[Flight[R]], work: PreparedBatch, pack: Pack) -> Flight[R]:
        self._slots.acquire()
        try:
            with watchdog.stage("launch", self._pack_seconds), exact_sums():
                return flight(self._model_of(work), work, pack)
        except BaseException:
            self._slots.release()
            raise

    def _model_of(self, work: PreparedBatch) -> Encoder:
        """Return the view that computes a batch. Called under the lock."""
        if work.contacts is None:
            return self.models[work.precision]
        if work.precision not in self._observed:
            apply = VIEWS.get(work.precision, view_of)
            apply = view_of if work.precision is self.precision else apply
            self._observed[work.precision] = observe_attention(apply(self.loaded.model))
        return self._observed[work.precision]

    def _finish(self, running: deque[Flight[R]]) -> R:
        """Wait for the first pack of ``running`` and remove it."""
        with watchdog.stage("wait for device", self._pack_seconds):
            result = running[0].result()
        running.popleft()
        self._slots.release()
        return result

    def _assemble(
        self,
        work: PreparedBatch,
        parts: Sequence[Mapping[str, Array]],
        masked: Array | None,
        segments: dict[int, NonFinite],
        seconds: float,
    ) -> Outcome:
        """Join the results of packs: finite rows in order, and descriptions of the others."""
        bad = work.by_record(segments)
        unstable = tuple(work.describe(record, seen) for record, seen in bad.items())
        finite = np.ones(len(work.records), np.bool_)
        finite[list(bad)] = False
        embeddings = Embeddings.of_records(
            [record for record, good in zip(work.records, finite.tolist(), strict=True) if good],
            work.form,
            precision=work.precision,
            pooled={name: values[finite] for name, values in work.join(parts).items()},
            residues=work.finite_residues(finite),
            scores=work.join_scores(parts, masked, finite),
        )
        tokens = tokens_in_all(embeddings.lengths.tolist(), work.form, self.loaded.spec)
        return Outcome(embeddings, unstable, work.precision, tokens, seconds)
