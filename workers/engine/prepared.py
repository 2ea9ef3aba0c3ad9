"""A batch in the form that the engine runs: from records to segments, and back."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from common.alphabet import SPECIAL_TOKENS
from common.embeddings.arrays import Array, entries_of
from common.job.output_form import PAIR_SCORES, RESIDUE_SCORES, OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from common.wire.messages import Instability, NonFinite
from workers.engine.finiteness import merge_non_finite
from workers.engine.scores import CLASS_ROWS, MASKED_PERPLEXITY, PERPLEXITY, SURPRISE
from workers.engine.windows import join_windows
from workers.models.classifier import Classifier
from workers.models.contact_head import ContactHead
from workers.models.lm_head import LMHead
from workers.models.tokens import Tokens
from workers.runtime.device import host_buffer


@dataclass(frozen=True, kw_only=True)
class PreparedBatch:
    """N records in S segments, ready to run."""

    records: Sequence[Record]  # N
    lengths: Array  # [N], letters embedded
    firsts: Sequence[int]  # N, each record's first segment
    tokens: Tokens  # S segments
    layers: Sequence[int]  # resolved, 0 to spec.layers
    form: OutputForm
    precision: Rung
    residues: Tensor | None  # [sum(lengths), K, D] on the host, if included
    scores: Mapping[str, Tensor] = field(default_factory=dict)  # of residues, in the same way
    head: LMHead | None = None  # if its scores are included
    classifier: Classifier | None = None  # likewise
    contacts: ContactHead | None = None  # likewise
    to_mask: Sequence[int] = ()  # segments whose residues are masked, once the others are known

    @property
    def tokens_in_all(self) -> int:
        """Tokens of all passes of the model."""
        lengths = self.tokens.lengths.astype(np.int64)
        passes = lengths - SPECIAL_TOKENS + 1 if self.form.masks else 1
        return int((lengths * passes).sum())

    def masking(self, unstable: Collection[int]) -> "PreparedBatch":
        """Return the batch with all residues to be masked but those of unstable segments."""
        segments = range(len(self.tokens.lengths))
        return replace(self, to_mask=[one for one in segments if one not in unstable])

    def by_record(self, segments: Mapping[int, NonFinite]) -> dict[int, NonFinite]:
        """Return what is not finite of records, from that of segments; both by position."""
        found: dict[int, list[NonFinite]] = {}
        for segment, seen in segments.items():
            record = int(np.searchsorted(self.firsts, segment, side="right")) - 1
            found.setdefault(record, []).append(seen)
        return {record: merge_non_finite(seen) for record, seen in found.items()}

    def describe(self, record: int, seen: NonFinite) -> Instability:
        """Return the description of a record that is not finite."""
        row, id_ = self.records[record].row, self.records[record].id
        length = int(self.lengths[record])
        return Instability(row=row, id=id_, length=length, seen={self.precision: seen})

    def join(self, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        """Join the packs' vectors ``[s, K, D]`` to those of records that the form includes."""
        names = {*self.form.pooled_names, *(["mean"] if "std" in self.form.include else [])}
        vectors = {name: np.concatenate([part[name] for part in parts]) for name in names}
        joined = join_windows(vectors, self.tokens.lengths, self.firsts)
        return {name: without_single_layer(joined[name]) for name in self.form.pooled_names}

    def join_scores(
        self, parts: Sequence[Mapping[str, Array]], masked: Array | None, finite: Array
    ) -> dict[str, Array]:
        """Return the scores that the form includes, of finite records ``[N]``.

        Args:
            masked: ``[S]``, the mean ``-ln p`` of each segment's masked residues, if included.
        """
        if not self.form.scores:
            return {}
        of_residues, of_pairs = (np.repeat(finite, self.lengths**power) for power in (1, 2))
        scores = {
            name: values.numpy()[of_pairs if name in PAIR_SCORES else of_residues]
            for name, values in self.scores.items()
        }
        means: dict[str, Array] = {}
        if PERPLEXITY in self.form.include:
            means[PERPLEXITY] = np.concatenate([part[SURPRISE] for part in parts])[:, 0]
        if masked is not None:
            means[MASKED_PERPLEXITY] = masked
        for name, values in join_windows(means, self.tokens.lengths, self.firsts).items():
            scores[name] = np.exp(values[finite])
        if CLASS_ROWS in self.form.include:
            scores[CLASS_ROWS] = np.concatenate([part[CLASS_ROWS] for part in parts])[finite]
        return scores

    def finite_residues(self, finite: Array) -> Array | None:
        """Return the residues ``[sum(L), *W]`` of finite records ``[N]``; no copy if all are."""
        if self.residues is None:
            return None
        values = without_single_layer(self.residues.numpy())
        return values if finite.all() else values[np.repeat(finite, self.lengths)]


def tokens_in_all(letters: Iterable[int], form: OutputForm, spec: ModelSpec) -> int:
    """Return the tokens of all passes over records of so many letters, as their job counts them."""
    records_of = Counter(letters)  # far fewer lengths than records
    embedded = {length: form.embedded(length) for length in records_of}
    return sum(
        count * spec.tokens(embedded[length]) * form.passes(embedded[length])
        for length, count in records_of.items()
    )


def without_single_layer(values: Array) -> Array:
    """Return ``[n, K, D]`` as ``[n, D]`` for a single layer."""
    return values[:, 0] if values.shape[1] == 1 else values


def residue_buffers(
    form: OutputForm, lengths: Array, dim: int, device: torch.device
) -> dict[str, Tensor]:
    """Return room on the host for what a batch keeps of each residue, or pair of them, by name."""
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        name: (form.score_shape(name), getattr(torch, form.score_dtype(name)))
        for name in (*RESIDUE_SCORES, *PAIR_SCORES)
        if name in form.include
    }
    if form.per_residue:
        shapes["residues"] = (len(form.layers), dim), getattr(torch, form.residue_dtype)
    return {
        name: host_buffer(entries_of(name, lengths), *shape, dtype=dtype, device=device)
        for name, (shape, dtype) in shapes.items()
    }


def synthetic_batch(spec: ModelSpec, lengths: Sequence[int], precision: Rung) -> PreparedBatch:
    """Return a batch of random tokens in segments of ``lengths``, for trial runs of a device."""
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
