"""ESM-2 checkpoints in Hugging Face's and fair-esm's format, under this project's names.

Their quirks are handled here and nowhere else.
"""

from pathlib import Path

import torch
from torch import Tensor

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.model_specs import ModelSpec
from workers.models.esm2.model import exact_inv_freq
from workers.models.weight_files import State, first_line, rename, safe_load, taker

#: Patterns of names in a Hugging Face checkpoint, and this project's names.
HUGGING_FACE_PREFIX = r"(?:esm\.)?"
HUGGING_FACE_NAMES = {
    r"embeddings\.word_embeddings\.": "embed_tokens.",
    r"encoder\.emb_layer_norm_after\.": "final_norm.",
    r"encoder\.layer\.(\d+)\.attention\.self\.query\.": r"blocks.\1.q.",
    r"encoder\.layer\.(\d+)\.attention\.self\.key\.": r"blocks.\1.k.",
    r"encoder\.layer\.(\d+)\.attention\.self\.value\.": r"blocks.\1.v.",
    # Once per layer in the published files; from transformers 5 on once, perhaps under '*'.
    r"(?:encoder\.layer\.(\d+|\*)\.attention\.self\.)?rotary_embeddings\.": r"blocks.\1.rotary.",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\1.out.",
    r"encoder\.layer\.(\d+)\.attention\.LayerNorm\.": r"blocks.\1.attention_norm.",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.": r"blocks.\1.fc1.",
    r"encoder\.layer\.(\d+)\.output\.dense\.": r"blocks.\1.fc2.",
    r"encoder\.layer\.(\d+)\.LayerNorm\.": r"blocks.\1.mlp_norm.",
}

#: Patterns of names in a fair-esm checkpoint, and this project's names.
FAIR_ESM_PREFIX = r"(?:encoder\.)?(?:sentence_encoder\.)?"
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


def from_hugging_face(raw: State, spec: ModelSpec, folder: Path) -> State:
    """Return the tensors of ``read_hugging_face`` under this project's names.

    Args:
        raw: tensors under their published names.
        spec: the model's shape.
        folder: where they come from, for errors.

    Raises:
        UserError: a tensor is missing, or differs from that of any ESM-2.
    """
    return fuse(rename(raw, HUGGING_FACE_PREFIX, HUGGING_FACE_NAMES), spec, folder)


def read_fair_esm(path: Path) -> tuple[ModelSpec, State]:
    """Read a fair-esm ``.pt`` file.

    Raises:
        UserError: it is not such a file, or a tensor is missing or differs from that of any ESM-2.
    """
    try:
        data = safe_load(path)
        config = data["cfg"]["model"]
        spec = ModelSpec(
            name=path.stem,
            layers=config.encoder_layers,
            dim=config.encoder_embed_dim,
            heads=config.encoder_attention_heads,
        )
        raw = dict(data["model"])
        if not config.token_dropout:
            raise ValueError("token_dropout is off, unlike in any ESM-2")
    except Exception as error:
        raise UserError(
            f"{path}: not a fair-esm ESM-2 checkpoint that can be opened safely "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    return spec, fuse(rename(raw, FAIR_ESM_PREFIX, FAIR_ESM_NAMES), spec, path)


def fuse(state: State, spec: ModelSpec, path: Path) -> State:
    """Join the query, key and value projections, and keep one copy of the rotary frequencies."""
    take = taker(state, path)
    fused = {"rotary.inv_freq": take_inv_freq(state, spec, path)}
    for layer in range(spec.layers):
        for kind in ("weight", "bias"):
            parts = [take(f"blocks.{layer}.{projection}.{kind}") for projection in "qkv"]
            fused[f"blocks.{layer}.qkv.{kind}"] = torch.cat(parts)
    embeddings = fused["embed_tokens.weight"] = take("embed_tokens.weight")
    if len(embeddings) != len(ESM2_TOKENS):
        raise UserError(
            f"{path}: a vocabulary of {len(embeddings)} tokens, unlike ESM-2's {len(ESM2_TOKENS)}."
        )
    return fused | state


def take_inv_freq(state: State, spec: ModelSpec, path: Path) -> Tensor:
    """Return the rotary frequencies: the checkpoint's if it has them, otherwise the formula's."""
    copies = [state.pop(name) for name in list(state) if name.endswith("rotary.inv_freq")]
    if not copies:
        return exact_inv_freq(spec.dim // spec.heads)
    if any(not torch.equal(copies[0], copy) for copy in copies):
        raise UserError(f"{path}: its layers have different rotary frequencies, unlike any ESM-2.")
    return copies[0]
