"""A pack on the device: all its work is queued at once, and waited for later."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.errors import UserError
from common.wire.messages import NonFinite
from workers.engine.finiteness import look_at
from workers.engine.packing import Pack
from workers.engine.pooling import Pooled, pool, residue_positions
from workers.engine.prepared import PreparedBatch
from workers.models.encoder import Encoder
from workers.runtime import trace
from workers.runtime.device import Moment, fetch, send


@dataclass(frozen=True)
class PackResult:
    """What one forward pass gave, beside residues, which go to the batch's buffer."""

    pooled: Pooled
    unstable: dict[int, NonFinite]  # by segment of the batch
    seconds: float  # of the device


class PackInFlight:
    """One forward pass, pooled, checked and copied to the host."""

    @torch.inference_mode()
    def __init__(self, model: Encoder, work: PreparedBatch, pack: Pack) -> None:
        self.work, self.pack = work, pack
        device = next(model.parameters()).device
        ids = send(torch.from_numpy(pack.ids), device)
        cu_seqlens = send(torch.from_numpy(pack.cu_seqlens), device)
        self._began = Moment(device)
        found = model.forward_packed(ids, cu_seqlens, pack.max_seqlen, work.layers)
        self._hidden = torch.stack([found[layer] for layer in work.layers], dim=1)  # [T, K, D]
        self._rows = fetch(pool(self._hidden, cu_seqlens, model.spec.family))
        self._overflows = self._copy_residues() if work.residues is not None else None
        self._done = Moment(device)

    def _copy_residues(self) -> Tensor | None:
        """Copy the pack's residues to their place in the batch's.

        Returns:
            Which of them are finite and too large for the type that was asked for: ``[R]`` bool,
            or None if none can be.
        """
        assert self.work.residues is not None
        positions = send(torch.from_numpy(residue_positions(self.pack.cu_seqlens)), self.device)
        residues = self._hidden.index_select(0, positions)
        stored = residues.to(self.work.residues.dtype)
        start = int(self.work.tokens.cu_seqlens[self.pack.first]) - SPECIAL_TOKENS * self.pack.first
        place = self.work.residues[start : start + len(stored)]
        place.copy_(stored, non_blocking=True)
        if stored.dtype == residues.dtype:
            return None
        return fetch((residues.isfinite() & ~stored.isfinite()).flatten(1).any(1))

    @property
    def device(self) -> torch.device:
        return self._hidden.device

    @torch.inference_mode()
    def result(self) -> PackResult:
        """Wait for the device.

        Raises:
            UserError: residues that the type asked for cannot hold.
        """
        self._done.wait()
        seconds = self._done.seconds_since(self._began)
        trace.add_device_span(f"{len(self.pack.ids):,} tokens", self._done, seconds)
        pooled = Pooled.read(self._rows, len(self.work.layers))
        self._check_range(pooled.finite)
        unstable = {
            self.pack.first + segment: self._look_at(segment, pooled.mean[segment])
            for segment in np.flatnonzero(~pooled.finite).tolist()
        }
        return PackResult(pooled, unstable, seconds)

    def _check_range(self, finite: Array) -> None:
        """Raises UserError for residues that would be infinite as they are to be stored.

        Those of segments that are not finite anyway are not stored at all.
        """
        if self._overflows is None:
            return
        letters = np.diff(self.pack.cu_seqlens) - SPECIAL_TOKENS
        if (self._overflows.numpy() & np.repeat(finite, letters)).any():
            raise UserError(
                f"Residues of layers {self.work.form.layers} are too large for "
                f"{self.work.form.residue_dtype}: submit with --residue-dtype float32."
            )

    def _look_at(self, segment: int, mean: Array) -> NonFinite:
        """What is not finite about a segment; waits for the device."""
        start, end = self.pack.cu_seqlens[segment : segment + 2]
        # BF16 and FP32 reach so far that finite terms can have a sum that is not.
        seen = look_at(self._hidden[start:end]) or look_at(torch.from_numpy(mean))
        assert seen is not None, "a sum over the segment is not finite, but all its terms are"
        return seen
