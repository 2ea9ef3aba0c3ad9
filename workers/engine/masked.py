"""The exact pseudo-perplexity: copies of a segment, each with one residue masked, in packs.

A segment of L residues has L copies. They are made pack by pack, and of each only one number is
kept, so that memory does not grow with L².
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.alphabet import ESM2_TOKENS, SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.wire.messages import NonFinite
from workers.engine.finiteness import describe_non_finite
from workers.engine.flight import Flight
from workers.engine.packing import Pack
from workers.engine.prepared import PreparedBatch
from workers.engine.scores import perplexity
from workers.models.encoder import Encoder
from workers.models.lm_head import LMHead
from workers.models.tokens import Tokens
from workers.runtime.device import to_device, to_host

MASK = ESM2_TOKENS.index("<mask>")


@dataclass(frozen=True)
class MaskedPack(Pack):
    """A pack of S copies, which may be of several segments."""

    sources: Array  # [S], the segment of the batch that each is a copy of
    masked: Array  # [S], where in the pack each copy's mask is
    observed: Array  # [S], the tokens that are masked


@dataclass(frozen=True)
class MaskedResult:
    """What the model says of the masked residues of a pack."""

    sources: Array  # [S], segments of the batch
    surprise: Array  # [S] FP32, -ln p of the residue that is masked
    seconds: float  # of the device's time


class MaskedInFlight(Flight[MaskedResult]):
    """One forward pass over copies."""

    @staticmethod
    def packs(work: PreparedBatch, budget: int) -> Iterator[Pack]:
        return masked_packs(work.tokens, work.to_mask, budget)

    @torch.inference_mode()
    def __init__(self, model: Encoder, work: PreparedBatch, pack: Pack) -> None:
        assert isinstance(pack, MaskedPack)
        assert work.head is not None
        super().__init__(model, work, pack)
        self._sources = pack.sources
        last = model.spec.layers
        found = model.forward_packed(self.ids, self.cu_seqlens, pack.max_seqlen, [last])
        masked = to_device(torch.from_numpy(pack.masked), self.device)
        observed = to_device(torch.from_numpy(pack.observed), self.device)
        self._surprise = to_host(
            surprise_of(work.head, found[last].index_select(0, masked), observed)
        )
        self.land()

    def result(self) -> MaskedResult:
        """Wait for the device and return the result."""
        seconds = self.wait()
        return MaskedResult(self._sources, self._surprise.numpy(), seconds)


def surprise_of(head: LMHead, hidden: Tensor, observed: Tensor) -> Tensor:
    """Return ``-ln p`` ``[S]`` of the tokens ``[S]`` at places with last layers ``[S, D]``."""
    logs = torch.log_softmax(head(hidden), dim=1)
    return -logs.gather(1, observed[:, None])[:, 0]


def masked_packs(tokens: Tokens, segments: Sequence[int], budget: int) -> Iterator[MaskedPack]:
    """Yield packs with all copies of some segments, in order, of at most ``budget`` tokens.

    A copy larger than the budget is a pack of its own.
    """
    runs: list[tuple[int, range]] = []  # segments, and which of their tokens are masked
    used = 0
    for segment in segments:
        length = int(tokens.lengths[segment])
        start, end = 1, length - 1
        while start < end:
            room = (budget - used) // length
            if room < 1 and runs:
                yield masked_pack(tokens, runs)
                runs, used = [], 0
                continue
            run = range(start, min(start + max(room, 1), end))
            runs.append((segment, run))
            used += len(run) * length
            start = run.stop
    if runs:
        yield masked_pack(tokens, runs)


def masked_pack(tokens: Tokens, runs: Sequence[tuple[int, range]]) -> MaskedPack:
    """Return a pack of one copy for each token of ``runs``, which are of at least one segment."""
    counts = [len(run) for _, run in runs]
    bounds = [tokens.cu_seqlens[segment : segment + 2] for segment, _ in runs]
    lengths = np.repeat([end - start for start, end in bounds], counts)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    parts = zip(bounds, counts, strict=True)
    ids = np.concatenate([np.tile(tokens.ids[start:end], count) for (start, end), count in parts])
    masked = cu_seqlens[:-1] + np.concatenate([np.asarray(run, np.int64) for _, run in runs])
    observed = ids[masked]
    ids[masked] = MASK
    sources = np.repeat([segment for segment, _ in runs], counts)
    return MaskedPack(ids, cu_seqlens, runs[0][0], sources, masked, observed)


def mean_surprise(
    parts: Sequence[MaskedResult], tokens: Tokens
) -> tuple[Array, dict[int, NonFinite]]:
    """Return the means ``[S]`` of ``-ln p`` of a batch's segments, and which are not finite.

    A mean whose ``exp`` is beyond FP32 counts as not finite. A segment without copies has 0.
    """
    sources = np.concatenate([np.zeros(0, np.int64), *(part.sources for part in parts)])
    surprise = np.concatenate([np.zeros(0, np.float32), *(part.surprise for part in parts)])
    sums = np.bincount(sources, surprise, len(tokens.lengths))
    means = (sums / (tokens.lengths - SPECIAL_TOKENS)).astype(np.float32)
    unstable = {}
    for segment in np.flatnonzero(~np.isfinite(perplexity(means))).tolist():
        values = torch.from_numpy(surprise[sources == segment])
        seen = describe_non_finite(values)
        seen = seen or describe_non_finite(torch.tensor([torch.inf]))
        assert seen is not None
        unstable[segment] = seen
    return means, unstable
