"""The two formats of ESM-2 checkpoints, Hugging Face's and fair-esm's, under one set of names.

Every quirk of a checkpoint ends here.
"""

import argparse
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.modeltable import ModelSpec, read_hugging_face_config
from workers.models.esm2 import exact_inv_freq

State = dict[str, Tensor]


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
    """Read a folder with ``config.json`` and weights in one or more files."""
    files = weight_files(folder)
    if not files or not (folder / "config.json").is_file():
        raise UserError(f"{folder}: needs config.json and *.safetensors or pytorch_model*.bin.")
    raw = {
        modern_name(name.removeprefix("esm.")): tensor
        for file in files
        for name, tensor in read_tensors(file)
    }
    spec = read_hugging_face_config(folder / "config.json")
    return spec, to_our_names(raw, HUGGING_FACE_NAMES, ("query", "key", "value"), spec, folder)


def weight_files(folder: Path) -> list[Path]:
    """The files of one set of weights: safetensors if there are any."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def modern_name(name: str) -> str:
    """What transformers 5 writes as ``LayerNorm.gamma`` and ``.beta``, by its present name."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        if file.suffix == ".bin":
            yield from safe_load(file).items()
            return
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                yield name, tensors.get_tensor(name)
    except Exception as error:
        raise UserError(f"{file}: not a readable weights file ({first_line(error)}).") from error


def safe_load(file: Path) -> Any:
    """Open a pickled checkpoint; nothing in it is run, and there is no other way to open one."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )


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
    """Read a fair-esm ``.pt`` file."""
    try:
        data = safe_load(path)
        config = data["cfg"]["model"]
        spec = ModelSpec(
            name=path.stem,
            layers=config.encoder_layers,
            dim=config.encoder_embed_dim,
            heads=config.encoder_attention_heads,
        )
        weights = data["model"]
        if not config.token_dropout:
            raise ValueError("token_dropout is off, unlike in any ESM-2")
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


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
