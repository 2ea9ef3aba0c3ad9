"""Embeddings of the validation's sets by one model in one precision, packed and padded."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.embeddings.arrays import Array
from common.model_source import ModelSource
from common.model_specs import ModelSpec
from common.rungs import Rung
from workers.engine.engine import DTYPES, Engine
from workers.engine.packing import make_packs
from workers.engine.pooling import Pooled, pool
from workers.models.loading import LoadedModel, load_model
from workers.models.tokens import Tokens
from workers.runtime.device import exact_sums
from workers.validation.sets import SequenceSet, make_sets

log = logging.getLogger(__name__)

#: Number of tokens in a forward pass, with padding: few enough that the 3B model's FP32 weights
#: (12 GB) and activations fit a GPU of 40 GB.
PASS_TOKENS = 16_384


@dataclass(frozen=True)
class Measured:
    """The embeddings of all sets by one model in one precision."""

    spec: ModelSpec
    fingerprint: str
    precision: Rung
    sets: list[SequenceSet]
    packed: dict[str, Array]  # by set: [N, D] FP32, mean-pooled last layer
    padded: dict[str, Array]


def measure(source: ModelSource, precision: Rung, device: str, count: int) -> Measured:
    """Load a model, embed ``count`` sequences of each set in both layouts, and free the model.

    Raises:
        UserError: the weights cannot be found or read.
        torch.OutOfMemoryError: the model or a pass does not fit the device.
    """
    log.info("Loading %s in %s on %s.", source.text, precision, device)
    loaded = load_model(source, device=device, dtype=DTYPES[precision])
    sets = make_sets(loaded.spec.family, count)
    tokens = {each.name: loaded.tokenize(each.sequences) for each in sets}
    with torch.inference_mode(), exact_sums():
        padded = embed_sets(partial(embed_padded, loaded), tokens, f"{precision} padded")
        # The model as a worker runs it, which on a GPU is a view of the loaded model.
        served = replace(loaded, model=Engine(loaded).models[precision])
        packed = embed_sets(partial(embed_packed, served), tokens, f"{precision} packed")
    return Measured(loaded.spec, loaded.fingerprint, precision, sets, packed, padded)


def embed_sets(
    embed: Callable[[Tokens], Array], tokens: dict[str, Tokens], variant: str
) -> dict[str, Array]:
    """Embed one set after another, and log each of them, since a large model takes minutes."""
    vectors = {}
    for name, each in tokens.items():
        log.info("Embedding %s, %s: %s tokens.", name, variant, f"{len(each.ids):,}")
        vectors[name] = embed(each)
    return vectors


def embed_packed(loaded: LoadedModel, tokens: Tokens) -> Array:
    """Return embeddings ``[N, D]`` FP32, computed as by a worker."""
    device, last = device_of(loaded), loaded.spec.layers
    parts = []
    for pack in make_packs(tokens, PASS_TOKENS):
        input_ids = torch.from_numpy(pack.ids).to(device)
        cu_seqlens = torch.from_numpy(pack.cu_seqlens).to(device)
        hidden = loaded.model.forward_packed(input_ids, cu_seqlens, pack.max_seqlen, [last])[last]
        parts.append(means_of(hidden, cu_seqlens, loaded))
    return np.concatenate(parts)


def embed_padded(loaded: LoadedModel, tokens: Tokens) -> Array:
    """Return embeddings ``[N, D]`` FP32 from padded batches of similar lengths."""
    device, last = device_of(loaded), loaded.spec.layers
    vectors = np.empty((len(tokens.lengths), loaded.spec.dim), dtype=np.float32)
    for rows in split_into_rectangles(tokens.lengths.tolist(), PASS_TOKENS):
        ids, real = pad(tokens, rows)
        is_real = torch.from_numpy(real).to(device)
        hidden = loaded.model.forward(torch.from_numpy(ids).to(device), is_real, [last])[last]
        cu_seqlens = torch.from_numpy(starts_of(tokens.lengths[rows])).to(device)
        vectors[rows] = means_of(hidden[is_real], cu_seqlens, loaded)
    return vectors


def means_of(hidden: Tensor, cu_seqlens: Tensor, loaded: LoadedModel) -> Array:
    """Pool ``[T, D]`` to ``[N, D]`` FP32, as a worker does."""
    rows = pool(hidden[:, None], cu_seqlens, loaded.spec.family)
    return Pooled.read(rows.cpu(), layers=1).mean[:, 0]


def split_into_rectangles(lengths: Sequence[int], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield positions of sequences of similar lengths, at most ``budget`` tokens with padding.

    A sequence longer than the budget is alone.
    """
    order = np.argsort(lengths, kind="stable")
    start = 0
    for position in range(1, len(order) + 1):
        is_end = position == len(order)
        if is_end or (position + 1 - start) * lengths[order[position]] > budget:
            yield order[start:position]
            start = position


def pad(tokens: Tokens, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return token ids ``[B, T]``, padded on the right, and which of them are real ``[B, T]``."""
    lengths = tokens.lengths[rows]
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(real.shape, dtype=np.int64)  # the ids at padding are never used
    sequences = np.split(tokens.ids, tokens.cu_seqlens[1:-1])
    ids[real] = np.concatenate([sequences[row] for row in rows])
    return ids, real


def starts_of(lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the bounds ``[N + 1]`` of consecutive segments."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)


def device_of(loaded: LoadedModel) -> torch.device:
    return next(loaded.model.parameters()).device
