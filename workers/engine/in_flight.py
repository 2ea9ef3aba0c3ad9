"""A pack whose segments are pooled and scored."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.errors import UserError
from common.wire.messages import NonFinite
from workers.engine.finiteness import describe_non_finite
from workers.engine.flight import Flight
from workers.engine.packing import Pack, make_packs
from workers.engine.pooling import Pooled, pool, residue_positions
from workers.engine.prepared import PreparedBatch
from workers.engine.scores import CLASS_ROWS, SURPRISE, classify, read_segments, score
from workers.models.classifier import Classifier
from workers.models.contact_head import ContactMaps, observed_by
from workers.models.encoder import Encoder
from workers.runtime.device import to_device, to_host


def stacked(layers: list[Tensor]) -> Tensor:
    """Return ``[T, K, D]`` of K tensors ``[T, D]``; a single one is not copied."""
    return torch.stack(layers, dim=1) if len(layers) > 1 else layers[0][:, None]


@dataclass(frozen=True)
class PackResult:
    """The result of one forward pass, without residues, which are in the batch's buffer."""

    pooled: Pooled
    unstable: dict[int, NonFinite]  # by the segment's position in the batch
    seconds: float  # of the device's time


class PackInFlight(Flight[PackResult]):
    """One forward pass with pooling, finiteness check and copy to the host, all queued."""

    @staticmethod
    def packs(work: PreparedBatch, budget: int) -> Iterator[Pack]:
        return make_packs(work.tokens, budget)

    @torch.inference_mode()
    def __init__(self, model: Encoder, work: PreparedBatch, pack: Pack) -> None:
        super().__init__(model, work, pack)
        ids, cu_seqlens = self.ids, self.cu_seqlens
        layers = {*work.layers, model.spec.layers} if work.form.scores else work.layers
        maps = None
        if work.contacts is not None:
            maps = ContactMaps(work.contacts, pack.lengths.tolist(), self.device)
        with observed_by(model, maps):
            found = model.forward_packed(ids, cu_seqlens, pack.max_seqlen, list(layers))
        self._hidden = stacked([found[layer] for layer in work.layers])
        self._rows = to_host(
            pool(self._hidden, cu_seqlens, model.spec.family, work.form.more_pooled)
        )
        positions = self._positions() if work.form.has_residues or work.head else ids[:0]
        self._overflows = None
        if work.residues is not None:
            self._overflows = self._copy_residues(positions)
        if work.head is not None:
            self._scores = score(work.head, found[model.spec.layers], ids, cu_seqlens, positions)
            for name in self._scores.of_residues.keys() & work.scores.keys():
                self._copy_scores(name, self._scores.of_residues[name])
            self._score_rows = to_host(self._scores.of_segments)
        if work.classifier is not None:
            self._classify(work.classifier, found[model.spec.layers], cu_seqlens, positions)
        if maps is not None:
            probabilities, finite = maps.finish()
            self._contact_maps = maps
            self._copy_scores("contacts", probabilities, self._pairs)
            self._contacts_finite = to_host(finite)
        self.land()

    def _classify(
        self, classifier: Classifier, hidden: Tensor, cu_seqlens: Tensor, positions: Tensor
    ) -> None:
        self._classes = classify(classifier, hidden, cu_seqlens, positions)
        if classifier.head.of_residues:
            self._copy_scores(classifier.head.include, self._classes.logits)
        self._class_rows = to_host(self._classes.of_segments)

    def _copy_scores(self, name: str, values: Tensor, place: slice | None = None) -> None:
        """Copy scores to their place in the batch's buffer: that of the pack's residues."""
        here = self.work.scores[name][place or self._letters]
        # Converted on the device: the copy is smaller.
        here.copy_(values.to(here.dtype), non_blocking=True)

    def _positions(self) -> Tensor:
        """Return the positions ``[R]`` of the pack's residues on the device."""
        return to_device(torch.from_numpy(residue_positions(self.pack.cu_seqlens)), self.device)

    @property
    def _letters(self) -> slice:
        """The place of the pack's residues in the batch's buffers."""
        first = self.pack.first
        start = int(self.work.tokens.cu_seqlens[first]) - SPECIAL_TOKENS * first
        return slice(start, start + len(self.pack.ids) - SPECIAL_TOKENS * self.pack.segments)

    @property
    def _pairs(self) -> slice:
        """The place of the pairs of the pack's residues in the batch's buffers."""
        squares = (self.work.tokens.lengths.astype(np.int64) - SPECIAL_TOKENS) ** 2
        first = self.pack.first
        start = int(squares[:first].sum())
        return slice(start, start + int(squares[first : first + self.pack.segments].sum()))

    def _copy_residues(self, positions: Tensor) -> Tensor | None:
        """Copy the pack's residues to their place in the batch's buffer.

        Returns:
            ``[R]`` bool, which residues are finite but beyond the range of the buffer's dtype; None
            if the dtype rules that out.
        """
        assert self.work.residues is not None
        residues = self._hidden.index_select(0, positions)
        stored = residues.to(self.work.residues.dtype)
        self.work.residues[self._letters].copy_(stored, non_blocking=True)
        if stored.dtype == residues.dtype:
            return None
        return to_host((residues.isfinite() & ~stored.isfinite()).flatten(1).any(1))

    @torch.inference_mode()
    def result(self) -> PackResult:
        """Wait for the device and return the result.

        Raises:
            UserError: residues are beyond the range of the dtype they are to be stored in.
        """
        seconds = self.wait()
        pooled = Pooled.read(self._rows, len(self.work.layers), self.work.form.more_pooled)
        if self.work.head is not None:
            surprise, finite = read_segments(self._score_rows, self.work.form)
            vectors = {**pooled.vectors, SURPRISE: surprise}
            pooled = Pooled(vectors, pooled.finite & finite)
        if self.work.classifier is not None:
            rows = self._class_rows.numpy()
            vectors = {**pooled.vectors, CLASS_ROWS: rows[:, :-1]}
            pooled = Pooled(vectors, pooled.finite & (rows[:, -1] != 0))
        if self.work.contacts is not None:
            pooled = Pooled(pooled.vectors, pooled.finite & self._contacts_finite.numpy())
        self._check_range(pooled.finite)
        unstable = {
            self.pack.first + segment: self._describe(segment, pooled)
            for segment in np.flatnonzero(~pooled.finite).tolist()
        }
        return PackResult(pooled, unstable, seconds)

    def _check_range(self, finite: Array) -> None:
        """Raise UserError if residues of finite segments would be infinite when stored."""
        if self._overflows is None:
            return
        letters = np.diff(self.pack.cu_seqlens) - SPECIAL_TOKENS
        if (self._overflows.numpy() & np.repeat(finite, letters)).any():
            raise UserError(
                f"Residues of layers {self.work.form.layers} are too large for "
                f"{self.work.form.residue_dtype}: submit with residue_dtype float32."
            )

    def _describe(self, segment: int, pooled: Pooled) -> NonFinite:
        """Describe what is not finite in a segment. Waits for the device."""
        start, end = self.pack.cu_seqlens[segment : segment + 2]
        seen = describe_non_finite(self._hidden[start:end])
        # In BF16 and FP32 a sum of finite terms, or of their squares, may overflow.
        for vectors in pooled.vectors.values():
            seen = seen or describe_non_finite(torch.from_numpy(vectors[segment]))
        if self.work.head is not None:
            letters = slice(start - SPECIAL_TOKENS * segment, end - SPECIAL_TOKENS * (segment + 1))
            seen = seen or describe_non_finite(self._scores.of_residues["logits"][letters])
            # A likelihood of less than FP32 has.
            surprise = torch.from_numpy(pooled.vectors[SURPRISE][segment])
            seen = seen or describe_non_finite(surprise.exp())
        if self.work.classifier is not None and self.work.classifier.head.of_residues:
            letters = slice(start - SPECIAL_TOKENS * segment, end - SPECIAL_TOKENS * (segment + 1))
            seen = seen or describe_non_finite(self._classes.logits[letters])
        if self.work.contacts is not None:
            seen = seen or describe_non_finite(self._contact_maps.of_segment(segment))
        assert seen is not None, "a sum over the segment is not finite, but all its terms are"
        return seen
