"""Weights into the model: Hugging Face safetensors, fair-esm ``.pt`` files, seeded random ones.

Every quirk of a checkpoint ends here; the model knows one set of names.
"""

import argparse
import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.modeltable import (
    MODELS,
    ModelSource,
    ModelSpec,
    read_hugging_face_config,
)
from workers.models.esm2 import ESM2, exact_inv_freq

State = dict[str, Tensor]

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


def random_weights(spec: ModelSpec, seed: int = 0) -> State:
    """Weights that mean nothing, the same on every machine, with activations of a usual size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ESM2(spec).state_dict().items()}
    state = {
        name: torch.randn(shape, generator=generator) * random_scale(name, shape)
        for name, shape in shapes.items()
    }
    for name in state:
        if name.endswith("norm.weight"):
            state[name] += 1.0
    state["rotary.inv_freq"] = exact_inv_freq(spec.dim // spec.heads)
    return state


def random_scale(name: str, shape: torch.Size) -> float:
    """Standard deviation that keeps a matrix product's output as large as its input."""
    is_matrix = len(shape) == 2 and name != "embed_tokens.weight"
    return float(shape[1]) ** -0.5 if is_matrix else 1.0 if len(shape) == 2 else 0.1


def download(name: str) -> Path:
    """Fetch ``facebook/<name>`` from the Hugging Face hub, or find it in the local cache.

    Raises:
        UserError: neither the hub nor the cache has it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(f"facebook/{name}", allow_patterns=["*.json", "*.safetensors"])
        )
    except Exception as error:
        raise UserError(
            f"Weights of facebook/{name} are not in the local cache and could not be fetched from "
            f"the Hugging Face hub ({type(error).__name__}: {first_line(error)}).\n"
            "Check the connection (HF_ENDPOINT names a mirror, HF_HOME the cache), or give "
            f"--model a folder with safetensors, or a fair-esm file such as ./{name}.pt."
        ) from error


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


# --- Hugging Face -----------------------------------------------------------------------------

#: Names in a Hugging Face checkpoint, after ``esm.`` was taken off, and ours.
HUGGING_FACE_NAMES = {
    r"embeddings\.word_embeddings\.": "embed_tokens.",
    r"encoder\.emb_layer_norm_after\.": "final_norm.",
    r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.": r"blocks.\1.\2.",
    # In each layer in the published files; once, also under a literal '*', from transformers 5 on.
    r"(?:encoder\.layer\.(\d+|\*)\.attention\.self\.)?rotary_embeddings\.": r"blocks.\1.rotary.",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\1.out.",
    r"encoder\.layer\.(\d+)\.attention\.LayerNorm\.": r"blocks.\1.attention_norm.",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.": r"blocks.\1.fc1.",
    r"encoder\.layer\.(\d+)\.output\.dense\.": r"blocks.\1.fc2.",
    r"encoder\.layer\.(\d+)\.LayerNorm\.": r"blocks.\1.mlp_norm.",
}


def read_hugging_face(folder: Path) -> tuple[ModelSpec, State]:
    """Read a folder with ``config.json`` and one or more ``*.safetensors``."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: needs config.json and *.safetensors (pickled weights are not opened)."
        )
    raw = {
        modern_name(name.removeprefix("esm.")): tensor
        for file in files
        for name, tensor in read_safetensors(file)
    }
    spec = read_hugging_face_config(folder / "config.json")
    return spec, to_our_names(raw, HUGGING_FACE_NAMES, ("query", "key", "value"), spec, folder)


def modern_name(name: str) -> str:
    """What transformers 5 writes as ``LayerNorm.gamma`` and ``.beta``, by its present name."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_tensor(name)
    except Exception as error:
        raise UserError(
            f"{file}: not a readable safetensors file ({first_line(error)})."
        ) from error


# --- fair-esm ---------------------------------------------------------------------------------

#: Names in a fair-esm checkpoint, after its prefixes were taken off, and ours.
FAIR_ESM_NAMES = {
    r"embed_tokens\.": "embed_tokens.",
    r"emb_layer_norm_after\.": "final_norm.",
    r"layers\.(\d+)\.self_attn\.(q|k|v)_proj\.": r"blocks.\1.\2.",
    r"layers\.(\d+)\.self_attn\.rot_emb\.": r"blocks.\1.rotary.",
    r"layers\.(\d+)\.self_attn\.out_proj\.": r"blocks.\1.out.",
    r"layers\.(\d+)\.self_attn_layer_norm\.": r"blocks.\1.attention_norm.",
    r"layers\.(\d+)\.(fc1|fc2)\.": r"blocks.\1.\2.",
    r"layers\.(\d+)\.final_layer_norm\.": r"blocks.\1.mlp_norm.",
}


def read_fair_esm(path: Path) -> tuple[ModelSpec, State]:
    """Read a fair-esm ``.pt`` file. Nothing in it is run: never without ``weights_only``."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            data = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
        config = data["cfg"]["model"]
        spec = ModelSpec(
            name=path.stem,
            layers=config.encoder_layers,
            dim=config.encoder_embed_dim,
            heads=config.encoder_attention_heads,
        )
        weights = data["model"]
    except Exception as error:
        raise UserError(
            f"{path}: not a fair-esm ESM-2 checkpoint that can be opened safely "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    raw = {
        name.removeprefix("encoder.").removeprefix("sentence_encoder."): tensor
        for name, tensor in weights.items()
    }
    return spec, to_our_names(raw, FAIR_ESM_NAMES, ("q", "k", "v"), spec, path)


# --- both -------------------------------------------------------------------------------------


def to_our_names(
    raw: State,
    names: dict[str, str],
    projections: tuple[str, str, str],
    spec: ModelSpec,
    path: Path,
) -> State:
    """Rename, fuse the three projections, and keep one copy of the rotary frequencies.

    What no rule names (language-model head, contact head, pooler) is not needed for embeddings.
    """
    renamed = {
        re.sub(pattern, ours, name, count=1): tensor
        for name, tensor in raw.items()
        for pattern, ours in names.items()
        if re.match(pattern, name)
    }
    take = taker(renamed, path)
    state = {"rotary.inv_freq": take_inv_freq(renamed, spec, path)}
    for layer in range(spec.layers):
        for kind in ("weight", "bias"):
            parts = [take(f"blocks.{layer}.{projection}.{kind}") for projection in projections]
            state[f"blocks.{layer}.qkv.{kind}"] = torch.cat(parts)
    embeddings = state["embed_tokens.weight"] = take("embed_tokens.weight")
    if len(embeddings) != len(ESM2_TOKENS):
        raise UserError(
            f"{path}: a vocabulary of {len(embeddings)} tokens, unlike ESM-2's {len(ESM2_TOKENS)}."
        )
    return state | renamed


def taker(state: State, path: Path) -> Callable[[str], Tensor]:
    def take(name: str) -> Tensor:
        try:
            return state.pop(name)
        except KeyError:
            raise UserError(f"{path}: {name} is missing from these weights.") from None

    return take


def take_inv_freq(state: State, spec: ModelSpec, path: Path) -> Tensor:
    """The rotary frequencies: from the checkpoint if it has them, else by the formula."""
    copies = [state.pop(name) for name in list(state) if name.endswith("rotary.inv_freq")]
    if not copies:
        return exact_inv_freq(spec.dim // spec.heads)
    if any(not torch.equal(copies[0], copy) for copy in copies):
        raise UserError(f"{path}: its layers have different rotary frequencies, unlike any ESM-2.")
    return copies[0]


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
