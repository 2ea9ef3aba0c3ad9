"""A batch on its way through the engine: records to segments and packs, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.arrays import Array
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from common.wire.messages import Instability, NonFinite
from workers.engine.finiteness import sum_up
from workers.engine.windows import join_windows
from workers.models.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class PreparedBatch:
    """A batch as the engine sees it: N records in S segments."""

    records: Sequence[Record]  # N
    lengths: Array  # [N], letters that are embedded
    firsts: Sequence[int]  # N: each record's first segment
    tokens: Tokens  # of S segments
    layers: Sequence[int]  # resolved: from 0
    form: OutputForm
    precision: Rung
    residues: Tensor | None  # [sum(lengths), K, D] on the host, if they are wanted

    def describe(self, segments: dict[int, NonFinite]) -> tuple[Instability, ...]:
        """What is not finite, by record, from what was seen of segments."""
        by_record: dict[int, list[NonFinite]] = {}
        for segment, seen in segments.items():
            record = int(np.searchsorted(self.firsts, segment, side="right")) - 1
            by_record.setdefault(record, []).append(seen)
        return tuple(
            Instability(
                row=self.records[i].row,
                id=self.records[i].id,
                length=int(self.lengths[i]),
                seen={self.precision: sum_up(seen)},
            )
            for i, seen in by_record.items()
        )

    def join(self, parts: Sequence[Array]) -> Array:
        """Pooled vectors of packs ``[s, K, D]`` to those of records, windows by their tokens."""
        vectors = join_windows(np.concatenate(parts), self.tokens.lengths, self.firsts)
        return without_single_layer(vectors)

    def finite_residues(self, finite: Array) -> Array | None:
        """The residues of the finite records ``[N]``: ``[sum(L), *W]``; no copy if all are."""
        if self.residues is None:
            return None
        values = without_single_layer(self.residues.numpy())
        return values if finite.all() else values[np.repeat(finite, self.lengths)]


def without_single_layer(values: Array) -> Array:
    """``[n, K, D]``; a single layer has no axis of its own."""
    return values[:, 0] if values.shape[1] == 1 else values


def made_up_batch(spec: ModelSpec, lengths: Sequence[int], precision: Rung) -> PreparedBatch:
    """A batch of tokens that mean nothing, in segments of ``lengths``: to try a device with."""
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    tokens = np.random.default_rng(0).integers(4, 24, cu_seqlens[-1])
    return PreparedBatch(
        records=[],
        lengths=np.asarray(lengths, dtype=np.int64) - SPECIAL_TOKENS,
        firsts=range(len(lengths)),
        tokens=Tokens(tokens, cu_seqlens),
        layers=[spec.layers],
        form=OutputForm(max_residues=spec.family.max_residues),
        precision=precision,
        residues=None,
    )
