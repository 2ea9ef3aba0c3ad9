"""Loading a model from a ``--model`` value: random weights, the hub, a folder or a file."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from common.adapters import BASE, is_adapter, read_adapter
from common.class_head import ClassHead, class_head_in
from common.errors import UserError
from common.model_digest import model_digest
from common.model_source import ModelSource
from common.model_specs import MODELS, ModelSpec
from common.rungs import should_use_fp16
from workers.models.encoder import Encoder
from workers.models.families import CODE_OF, model_class
from workers.models.lora import merge
from workers.models.random_weights import random_weights
from workers.models.single_file import read_single_file
from workers.models.tokens import Tokenizer
from workers.models.weight_files import State, read_hugging_face

#: Number of values of each tensor in the fingerprint: enough to tell any two trained models apart,
#: few enough to take a second for 3 billion parameters.
FINGERPRINT_SAMPLE = 4096

#: What precedes the names of a classification head's tensors.
CLASSIFIER = "classifier."


class Checkpoint(NamedTuple):
    """What a file or folder has, before it is a model."""

    spec: ModelSpec
    state: State  # under this project's names
    tokenize: Tokenizer
    #: Returns the published name of one of this project's names, for errors.
    published: Callable[[str], str]
    #: What an adapter was merged into, and which: attributes of all embeddings.
    origins: Mapping[str, str] = MappingProxyType({})
    classifier: Mapping[str, Tensor] = MappingProxyType(
        {}
    )  # of a classification head, if there is one


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to serve, with its tokenizer, origin and fingerprint."""

    model: Encoder
    tokenize: Tokenizer
    source: ModelSource
    fingerprint: str
    model_digest: str | None = None  # ModelSource.digest; None for a name
    place: Path | None = None  # where the weights were read, if the caller knew
    origins: Mapping[str, str] = field(default_factory=dict)  # of an adapter; see Checkpoint
    classifier: Mapping[str, Tensor] = field(default_factory=dict)  # of a classification head

    @property
    def spec(self) -> ModelSpec:
        """The model's shape."""
        return self.model.spec

    @cached_property
    def class_head(self) -> ClassHead | None:
        """The classes of the model's classification head, if it has one.

        Raises:
            UserError: its configuration cannot be used.
        """
        if not self.classifier:
            return None
        return class_head_in(self.place or place_of(self.source))

    @cached_property
    def classifier_fingerprint(self) -> str:
        """16 hex digits that identify the classification head."""
        return fingerprint_of(self.classifier, {})


def load_model(
    source: ModelSource | str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype,
    place: Path | None = None,
) -> LoadedModel:
    """Load a model with its weights on ``device`` in ``dtype``, in evaluation mode.

    With ``VIRNUCPRO_DISABLE_FP16`` it is FP32, whatever ``dtype`` is.

    Args:
        place: where the weights are on this machine; None: they are found, or downloaded.

    Raises:
        UserError: the weights cannot be found or read, do not fit the model, or are beyond the
            range of ``dtype``.
    """
    source = source if isinstance(source, ModelSource) else ModelSource.parse(source)
    dtype = dtype if dtype == torch.float32 or should_use_fp16() else torch.float32
    checkpoint = read_weights(source, place)
    spec, state, tokenize = checkpoint.spec, checkpoint.state, checkpoint.tokenize
    fingerprint = fingerprint_of_checkpoint(checkpoint)
    with torch.device("meta"):
        model = model_class(spec)(spec)
    exact = dict(model.named_buffers())
    # Copied: what is read may be a map of the file, and change with it.
    on_device = {
        name: tensor.to(device, torch.float32 if name in exact else dtype, copy=True)
        for name, tensor in state.items()
    }
    check_range(source, checkpoint, on_device)
    model.load_state_dict(on_device, assign=True)
    return LoadedModel(
        model=model.eval().requires_grad_(False),
        tokenize=tokenize,
        source=source,
        fingerprint=fingerprint,
        place=place,
        origins=checkpoint.origins,
        classifier=checkpoint.classifier,
    )


def check_range(source: ModelSource, checkpoint: Checkpoint, cast: State) -> None:
    """Check that all weights are finite, both as read and as ``cast``.

    Otherwise no input would have a finite embedding.

    Raises:
        UserError: some weights are not finite.
    """
    for name, tensor in cast.items():
        if bool(torch.isfinite(tensor).all()):
            continue
        theirs = checkpoint.published(name)
        if not bool(torch.isfinite(checkpoint.state[name]).all()):
            raise UserError(f"{source.text}: {theirs} contains NaN or Inf: the file is damaged.")
        raise UserError(
            f"{source.text}: {theirs} has weights beyond {torch.finfo(tensor.dtype).max:.4g}, the "
            f"largest {tensor.dtype}. Try precision bf16 or fp32."
        )


def read_weights(source: ModelSource, place: Path | None = None) -> Checkpoint:
    """Read the shape, the weights (under this project's names) and the tokenizer of ``source``."""
    if source.is_random:
        spec = MODELS[source.name]
        state = random_weights(model_class(spec), spec)
        return Checkpoint(spec, state, CODE_OF[spec.family].own_tokenizer(), str)
    path = place or place_of(source)
    try:
        if path.is_dir():
            return read_folder(path)
        if path.is_file():
            spec, raw = read_single_file(path)
            return checkpoint_of(spec, raw, path, CODE_OF[spec.family].own_tokenizer())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    raise UserError(f"{path}: no such folder or file with weights.")


def place_of(source: ModelSource) -> Path:
    """Return the place of trained weights on this machine, to which they may be downloaded."""
    from common.weights.local import local_weights

    found = local_weights(source)
    assert found is not None, source.text
    return found.path


def read_folder(folder: Path) -> Checkpoint:
    if is_adapter(folder):
        return read_adapted(folder)
    spec, raw = read_hugging_face(folder)
    return checkpoint_of(spec, raw, folder, CODE_OF[spec.family].tokenizer_in(folder))


def read_adapted(folder: Path) -> Checkpoint:
    """Read an adapter merged into its base, whose tokenizer it has."""
    adapter, (spec, raw, place) = read_adapter(folder), read_base(folder)
    tokenize = CODE_OF[spec.family].tokenizer_in(place)
    base = checkpoint_of(spec, raw, place, tokenize)
    merged = checkpoint_of(replace(spec, name=folder.name), merge(adapter, raw), place, tokenize)
    return merged._replace(
        origins={
            "base_model": adapter.base,
            "base_weights": fingerprint_of_checkpoint(base),
            "adapter_weights": model_digest(adapter.files) or "",
        }
    )


def raw_tensors(folder: Path) -> State:
    """Return all tensors of a folder under their published names, heads among them."""
    if not is_adapter(folder):
        return read_hugging_face(folder)[1]
    return merge(read_adapter(folder), read_base(folder)[1])


def read_base(folder: Path) -> tuple[ModelSpec, State, Path]:
    """Return the shape, the tensors and the place of an adapter's base."""
    adapter = read_adapter(folder)
    place = place_of(ModelSource(adapter.base))
    if not place.is_dir():
        raise UserError(
            f"{folder}: the base of this adapter, {place}, is not here. Bring it here, or give the "
            f"adapter another place of it: ln -s /path/of/base {folder / BASE}"
        )
    return *read_hugging_face(place), place


def checkpoint_of(spec: ModelSpec, raw: State, place: Path, tokenize: Tokenizer) -> Checkpoint:
    """Return what a folder or file has, from its tensors under their published names."""
    code = CODE_OF[spec.family]
    state = code.from_published(raw, spec, place)
    return Checkpoint(
        *(spec, state, tokenize, code.names_of(raw).published),
        # Copied: what is read may be a map of the file, and change with it.
        classifier={
            name.removeprefix(CLASSIFIER): tensor.clone()
            for name, tensor in raw.items()
            if name.startswith(CLASSIFIER)
        },
    )


def fingerprint_of_checkpoint(checkpoint: Checkpoint) -> str:
    spec, tokenize = checkpoint.spec, checkpoint.tokenize
    return fingerprint_of(
        checkpoint.state, tokenize.vocabulary, spec.layer_norm_eps, tokenize.deviations
    )


def fingerprint_of(
    state: Mapping[str, Tensor],
    vocabulary: Mapping[str, int],
    layer_norm_eps: float | None = None,
    deviations: str = "",
) -> str:
    """Return 16 hex digits that identify the weights, the same for both checkpoint formats.

    Hashes each tensor's name, shape and up to ``FINGERPRINT_SAMPLE`` evenly spaced values, and
    each token with its id, since embeddings depend on the tokenizer too, as on an eps that is not
    the family's.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        flat = state[name].flatten()
        sample = flat[:: max(1, flat.numel() // FINGERPRINT_SAMPLE)].float().contiguous()
        digest.update(f"{name}{tuple(state[name].shape)}".encode())
        digest.update(sample.numpy().tobytes())
    for token, number in sorted(vocabulary.items()):
        digest.update(f"{token}\0{number}\0".encode())
    digest.update(deviations.encode())
    if layer_norm_eps is not None:
        digest.update(f"eps {layer_norm_eps}".encode())
    return digest.hexdigest()[:16]
