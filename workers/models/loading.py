"""A ``--model`` value to a model ready to serve."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import UserError
from common.modeltable import MODELS, ModelSource, ModelSpec
from workers.models.checkpoints import (
    State,
    first_line,
    read_fair_esm,
    read_hugging_face,
    weight_files,
)
from workers.models.esm2 import ESM2
from workers.models.random_weights import random_weights

#: Values of each tensor that go into the fingerprint: enough to tell any two trainings apart,
#: few enough that 3 billion parameters are told apart in a second.
FINGERPRINT_SAMPLE = 4096


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to serve, and what names its weights."""

    model: ESM2
    source: ModelSource
    fingerprint: str

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec


def load_model(
    source: ModelSource | str, *, device: torch.device | str = "cpu", dtype: torch.dtype
) -> LoadedModel:
    """Build a model with its weights on ``device`` in ``dtype``, in evaluation mode.

    Raises:
        UserError: the weights cannot be had, are not an ESM-2's, or do not fit each other.
    """
    source = ModelSource.parse(source) if isinstance(source, str) else source
    spec, state = read_weights(source)
    fingerprint = fingerprint_of(state)
    with torch.device("meta"):
        model = ESM2(spec)
    inv_freq = state["rotary.inv_freq"].float()
    on_device = {name: tensor.to(device, dtype) for name, tensor in state.items()}
    on_device["rotary.inv_freq"] = inv_freq.to(device)
    try:
        model.load_state_dict(on_device, assign=True)
    except RuntimeError as error:
        problems = "\n".join(str(error).splitlines()[1:4])
        raise UserError(
            f"{source.text}: these weights do not make an ESM-2 of {spec.layers} layers and width "
            f"{spec.dim}:\n{problems}"
        ) from error
    return LoadedModel(model.eval().requires_grad_(False), source, fingerprint)


def read_weights(source: ModelSource) -> tuple[ModelSpec, State]:
    """Read the shape and the weights that ``source`` names, under this project's names."""
    if source.is_random:
        spec = MODELS[source.name]
        return spec, random_weights(spec)
    if not source.is_path:
        return read_hugging_face(download(source.name))
    path = Path(source.text)
    if path.is_dir():
        return read_hugging_face(path)
    if path.is_file():
        return read_fair_esm(path)
    raise UserError(f"{path}: no such folder or file with weights.")


def download(name: str) -> Path:
    """Fetch ``facebook/<name>`` from the Hugging Face hub, or find it in the local cache.

    Raises:
        UserError: neither the hub nor the cache has it.
    """
    from huggingface_hub import snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(f"facebook/{name}", allow_patterns=list(patterns)))

    try:
        folder = fetch("config.json", "*.safetensors")
        # The largest models were never converted on the hub.
        return folder if weight_files(folder) else fetch("config.json", "pytorch_model*.bin")
    except Exception as error:
        raise UserError(
            f"Weights of facebook/{name} are not in the local cache and could not be fetched from "
            f"the Hugging Face hub ({type(error).__name__}: {first_line(error)}).\n"
            "Check the connection (HF_ENDPOINT names a mirror, HF_HOME the cache), or give "
            f"--model a folder with safetensors, or a fair-esm file such as ./{name}.pt."
        ) from error


def fingerprint_of(state: State) -> str:
    """Name the weights by content: 16 hex digits, the same for both checkpoint formats.

    Hashes each tensor's name, shape and up to ``FINGERPRINT_SAMPLE`` evenly spaced values.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        flat = state[name].flatten()
        sample = flat[:: max(1, flat.numel() // FINGERPRINT_SAMPLE)].float().contiguous()
        digest.update(f"{name}{tuple(state[name].shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:16]
