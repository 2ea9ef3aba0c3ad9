"""The language-model head of ESM-2: logits of tokens. It is loaded only for jobs that need it."""

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.model_specs import ESM2, ModelSpec
from workers.models.heads import with_weights
from workers.models.loading import (
    Checkpoint,
    LoadedModel,
    fingerprint_of_checkpoint,
    place_of,
    raw_tensors,
    read_weights,
)
from workers.models.random_weights import random_weights
from workers.models.single_file import read_single_file
from workers.models.weight_files import State, samples

#: Names in both formats, after their prefixes, and this project's names. The bias is of the
#: decoder; transformers may write it twice.
NAMES = {
    "dense.weight": "dense.weight",
    "dense.bias": "dense.bias",
    "layer_norm.weight": "layer_norm.weight",
    "layer_norm.bias": "layer_norm.bias",
    "bias": "decoder.bias",
    "weight": "decoder.weight",
    "decoder.weight": "decoder.weight",
}
PREFIX = re.compile(r"^(?:encoder\.)?lm_head\.")


class LMHead(nn.Module):
    """``[..., D]``, the last layer of ESM-2 in any dtype, to logits ``[..., 33]``.

    In FP32 at each rung, where it cannot overflow: a few per cent of the time of the 650M model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.dense = nn.Linear(spec.dim, spec.dim)
        self.layer_norm = nn.LayerNorm(spec.dim, eps=spec.eps)
        self.decoder = nn.Linear(spec.dim, len(ESM2_TOKENS))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.layer_norm(F.gelu(self.dense(x.float()))))
        return logits


def load_lm_head(loaded: LoadedModel) -> LMHead:
    """Load the head that belongs to a loaded model, in FP32 on its device.

    Raises:
        UserError: the weights have no head, are of another family, are no longer those that were
            loaded, or cannot be read.
    """
    spec, source = loaded.spec, loaded.source
    if spec.family is not ESM2:
        raise UserError(
            f"{source.text}: {spec.family.name} has no language-model head here: logits, entropy "
            "and pseudo-perplexity are of ESM-2 alone."
        )
    state = random_weights(LMHead, spec, seed=1) if source.is_random else read_head(loaded)
    with torch.device("meta"):
        head = LMHead(spec)
    return with_weights(head, state, loaded)


def read_head(loaded: LoadedModel) -> State:
    """Return the tensors of the head beside a model's weights, under this project's names.

    Raises:
        UserError: there are none, or they do not fit; or the weights have changed.
    """
    place = loaded.place or place_of(loaded.source)
    checkpoint = check_unchanged(loaded, place)
    try:
        raw = raw_tensors(place) if place.is_dir() else read_single_file(place)[1]
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror}).") from error
    return head_of(raw, checkpoint.state["embed_tokens.weight"], loaded.spec, place)


def check_unchanged(loaded: LoadedModel, place: Path) -> Checkpoint:
    """Return a loaded model's checkpoint, read again.

    Raises:
        UserError: it cannot be read, or has other weights than were loaded.
    """
    try:
        checkpoint = read_weights(loaded.source, place)
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror}).") from error
    found = fingerprint_of_checkpoint(checkpoint)
    if found != loaded.fingerprint:
        raise UserError(
            f"{place}: these are no longer the weights that were loaded ({loaded.fingerprint}): "
            "restart this process to use them."
        )
    return checkpoint


def head_of(raw: State, embeddings: Tensor, spec: ModelSpec, place: Path) -> State:
    """Return a checkpoint's head under this project's names.

    Args:
        raw: all tensors of the checkpoint, under their published names.
        embeddings: of its tokens, which the decoder shares where it has no weights of its own.
        spec: the model's shape.
        place: where the tensors come from, for errors.

    Raises:
        UserError: tensors are missing, do not fit, or are not finite.
    """
    published = {PREFIX.sub("", name): name for name in raw if PREFIX.match(name)}
    state = {ours: raw[published[name]] for name, ours in NAMES.items() if name in published}
    state.setdefault("decoder.weight", embeddings)
    with torch.device("meta"):
        expected: State = LMHead(spec).state_dict()
    missing = [name for name in expected if name not in state]
    if missing:
        raise UserError(
            f"{place}: these weights have no language-model head (no lm_head.{missing[0]}), which "
            f"logits, entropy and pseudo-perplexity need. They have {samples(raw)}. Take the "
            "published checkpoint, or save the model as EsmForMaskedLM."
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape or not tensor.is_floating_point():
            raise UserError(
                f"{place}: lm_head.{name} is {tensor.dtype} {tuple(tensor.shape)} instead of "
                f"{tuple(expected[name].shape)}."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{place}: lm_head.{name} contains NaN or Inf: the file is damaged.")
    return state
