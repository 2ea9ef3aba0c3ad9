"""The contact head of ESM-2: probabilities that residues touch, from all maps of attention.

A logistic regression over the maps of all layers and heads, each made symmetric and corrected for
the average product of its rows and columns (APC; Rao et al. 2021, fair-esm
``ContactPredictionHead``). It is loaded only for jobs that need it.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from common.alphabet import SPECIAL_TOKENS
from common.errors import UserError
from common.memory import is_out_of_memory
from common.model_specs import ESM2, ModelSpec
from workers.models.attention.attention import Attention
from workers.models.attention.layouts import Layout
from workers.models.encoder import Encoder
from workers.models.heads import with_weights
from workers.models.lm_head import check_unchanged
from workers.models.loading import LoadedModel, place_of, raw_tensors
from workers.models.mixed_precision import MixedPrecisionAttention
from workers.models.single_file import read_single_file
from workers.models.weight_files import State, first_line, is_state_dict, safe_load

#: Names in both formats, before those of this project.
PREFIX = re.compile(r"^(?:esm\.|encoder\.)?contact_head\.regression\.")

#: The end of the name of the file beside a published ``.pt`` that has the head.
REGRESSION_FILE = "-contact-regression.pt"

#: Numbers of attention that are computed at once, in FP32: 128 MiB.
MOST_AT_ONCE = 2**25

#: About the weights' standard deviation, and the bias, of a trained regression.
RANDOM_SCALE, RANDOM_BIAS = 2.0, -3.0


class ContactHead(nn.Module):
    """The regression over ``layers * heads`` maps, in FP32 at each rung."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(1, spec.layers * spec.heads))
        self.bias = nn.Parameter(torch.empty(1))


class ContactMaps:
    """The logits of contacts of a pack's segments, summed layer by layer."""

    def __init__(self, head: ContactHead, lengths: Sequence[int], device: torch.device) -> None:
        """Begin with no layer.

        Args:
            lengths: of the pack's segments, in tokens.
        """
        self._weights = head.weight.view(head.spec.layers, head.spec.heads)
        self._bias = head.bias
        self._lengths = list(lengths)
        self._layer = 0
        residues = [length - SPECIAL_TOKENS for length in lengths]
        self._logits = torch.zeros(sum(n * n for n in residues), device=device)
        parts = self._logits.split([n * n for n in residues])
        self._maps = [part.view(n, n) for part, n in zip(parts, residues, strict=True)]

    def add(self, q: Tensor, k: Tensor) -> None:
        """Add the next layer, of queries and keys ``[T, H, Dh]`` after rotary embedding."""
        weights = self._weights[self._layer]
        segments = zip(*(t.split(self._lengths) for t in (q, k)), self._maps, strict=True)
        for queries, keys, sums in segments:
            at_once = max(1, MOST_AT_ONCE // len(queries) ** 2)
            for first in range(0, q.shape[1], at_once):
                heads = slice(first, first + at_once)
                sums += contact_logits(queries[:, heads], keys[:, heads], weights[heads])
        self._layer += 1

    def finish(self) -> tuple[Tensor, Tensor]:
        """Return the probabilities ``[sum(L ** 2)]``, and which segments' are finite ``[N]``."""
        assert self._layer == len(self._weights), "a layer is missing"
        finite = torch.stack([sums.isfinite().all() for sums in self._maps])
        return torch.sigmoid(self._logits + self._bias), finite

    def of_segment(self, segment: int) -> Tensor:
        """Return the logits of a segment ``[L, L]``, without the bias."""
        return self._maps[segment]


def contact_logits(q: Tensor, k: Tensor, weights: Tensor) -> Tensor:
    """Return what some heads ``[h]`` of one layer add to the logits ``[L, L]`` of a segment.

    Both the sum of a map and its transpose and its correction are linear in the weights, so that
    only the maps themselves have all heads.

    Args:
        q, k: ``[L + 2, h, Dh]``, of the special tokens too.
        weights: ``[h]`` of the regression.
    """
    q, k = (t.transpose(0, 1).float() for t in (q, k))  # [h, L + 2, Dh]
    maps = torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, dim=-1)[:, 1:-1, 1:-1]
    summed = torch.einsum("h,hij->ij", weights, maps)
    margins = maps.sum(1) + maps.sum(2)  # [h, L] of the symmetric maps
    # A head that attends to special tokens alone has nothing to correct: 0, and not 0 / 0.
    total = margins.sum(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return summed + summed.t() - (weights[:, None] * margins / total).t() @ margins


class ObservedAttention(nn.Module):
    """Attention that shows its queries and keys to an observer, if there is one."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.observer: ContactMaps | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        if self.observer is not None:
            self.observer.add(q, k)
        found: Tensor = self.attention(q, k, v, layout)
        return found


def observe_attention(view: Encoder) -> Encoder:
    """Make the attention of a view of a model observable; return the view."""
    for block in view.block_list():
        assert isinstance(block.attention, Attention | MixedPrecisionAttention)
        block.attention = ObservedAttention(block.attention)
    return view


@contextmanager
def observed_by(model: Encoder, maps: ContactMaps | None) -> Iterator[None]:
    """Show the attention of the passes in the block to ``maps``; None: to nobody."""
    if maps is None:
        yield
        return
    attentions = [block.attention for block in model.block_list()]
    for attention in attentions:
        attention.observer = maps
    try:
        yield
    finally:
        for attention in attentions:
            attention.observer = None


def load_contact_head(loaded: LoadedModel) -> ContactHead:
    """Load the head that belongs to a loaded model, in FP32 on its device.

    Raises:
        UserError: the weights have no head, are of another family, are no longer those that were
            loaded, or cannot be read.
    """
    spec, source = loaded.spec, loaded.source
    if spec.family is not ESM2:
        raise UserError(
            f"{source.text}: {spec.family.name} has no contact head: contacts are of ESM-2 alone."
        )
    if source.is_random:
        state = random_head(spec)
    else:
        place = loaded.place or place_of(source)
        check_unchanged(loaded, place)
        state = contact_head_of(tensors_of(place), spec, place)
    with torch.device("meta"):
        head = ContactHead(spec)
    return with_weights(head, state, loaded)


def random_head(spec: ModelSpec) -> State:
    """Return random weights of about the size of trained ones, the same on every machine."""
    drawn = torch.randn(1, spec.layers * spec.heads, generator=torch.Generator().manual_seed(2))
    return {"weight": drawn * RANDOM_SCALE, "bias": torch.tensor([RANDOM_BIAS])}


def tensors_of(place: Path) -> State:
    """Return the tensors of a checkpoint, and of the file with the regression beside it.

    Raises:
        UserError: they cannot be read.
    """
    try:
        if place.is_dir():
            return raw_tensors(place)
        beside = place.with_name(place.stem + REGRESSION_FILE)
        if not beside.is_file():
            return read_single_file(place)[1]
        try:
            state = safe_load(beside)["model"]
        except Exception as error:
            if is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"{beside}: not a contact regression of fair-esm ({why}).") from error
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror}).") from error
    if not is_state_dict(state):
        raise UserError(f"{beside}: not a contact regression of fair-esm: no tensors by name.")
    return dict(state)


def contact_head_of(raw: State, spec: ModelSpec, place: Path) -> State:
    """Return a checkpoint's head under this project's names.

    Args:
        raw: all tensors of the checkpoint, under their published names.
        spec: the model's shape.
        place: where the tensors come from, for errors.

    Raises:
        UserError: tensors are missing, do not fit, or are not finite.
    """
    state = {PREFIX.sub("", name): raw[name] for name in raw if PREFIX.match(name)}
    with torch.device("meta"):
        expected: State = ContactHead(spec).state_dict()
    for name, right in expected.items():
        tensor = state.get(name)
        if tensor is None:
            where = (
                "Take the published folder of the model"
                if place.is_dir()
                else f"Put {place.stem}{REGRESSION_FILE} of fair-esm beside it"
            )
            raise UserError(
                f"{place}: these weights have no contact head (no contact_head.regression.{name}), "
                f"which contacts need. {where}, or leave out contacts.",
                path=place,
            )
        if tensor.shape != right.shape or not tensor.is_floating_point():
            raise UserError(
                f"{place}: contact_head.regression.{name} is {tensor.dtype} "
                f"{tuple(tensor.shape)} instead of {tuple(right.shape)}.",
                path=place,
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{place}: contact_head.regression.{name} contains NaN or Inf: the file is "
                "damaged.",
                path=place,
            )
    return {name: state[name] for name in expected}
