"""ESM-2 checkpoints in Hugging Face's and fair-esm's format, under this project's names.

Their quirks are handled here and nowhere else.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.memory import is_out_of_memory
from common.model_config import size
from common.model_files import check_single
from common.model_specs import ModelSpec
from workers.models.esm2.model import ESM2, exact_inv_freq
from workers.models.weight_files import (
    Names,
    State,
    add_tensors,
    check_fit,
    describe,
    first_line,
    is_state_dict,
    safe_load,
    taker,
)

HUGGING_FACE = Names(
    prefix=r"(?:esm\.)?",
    patterns={
        r"embeddings\.word_embeddings\.": "embed_tokens.",
        r"encoder\.emb_layer_norm_after\.": "final_norm.",
        r"encoder\.layer\.(\d+)\.attention\.self\.query\.": r"blocks.\1.q.",
        r"encoder\.layer\.(\d+)\.attention\.self\.key\.": r"blocks.\1.k.",
        r"encoder\.layer\.(\d+)\.attention\.self\.value\.": r"blocks.\1.v.",
        # Once per layer in the published files; from transformers 5 on once, perhaps under '*'.
        r"(?:encoder\.layer\.(\d+|\*)\.attention\.self\.)?rotary_embeddings\.": (
            r"blocks.\1.rotary."
        ),
        r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\1.out.",
        r"encoder\.layer\.(\d+)\.attention\.LayerNorm\.": r"blocks.\1.attention_norm.",
        r"encoder\.layer\.(\d+)\.intermediate\.dense\.": r"blocks.\1.fc1.",
        r"encoder\.layer\.(\d+)\.output\.dense\.": r"blocks.\1.fc2.",
        r"encoder\.layer\.(\d+)\.LayerNorm\.": r"blocks.\1.mlp_norm.",
    },
    inside=r"(?:embeddings|encoder)\.",
    # The published files have positions, which a model with rotary embedding does not use.
    unused=r"position_embeddings\.weight$|position_ids$",
)

FAIR_ESM = Names(
    prefix=r"(?:encoder\.)?(?:sentence_encoder\.)?",
    patterns={
        r"embed_tokens\.": "embed_tokens.",
        r"emb_layer_norm_after\.": "final_norm.",
        r"layers\.(\d+)\.self_attn\.q_proj\.": r"blocks.\1.q.",
        r"layers\.(\d+)\.self_attn\.k_proj\.": r"blocks.\1.k.",
        r"layers\.(\d+)\.self_attn\.v_proj\.": r"blocks.\1.v.",
        r"layers\.(\d+)\.self_attn\.rot_emb\.": r"blocks.\1.rotary.",
        r"layers\.(\d+)\.self_attn\.out_proj\.": r"blocks.\1.out.",
        r"layers\.(\d+)\.self_attn_layer_norm\.": r"blocks.\1.attention_norm.",
        r"layers\.(\d+)\.fc1\.": r"blocks.\1.fc1.",
        r"layers\.(\d+)\.fc2\.": r"blocks.\1.fc2.",
        r"layers\.(\d+)\.final_layer_norm\.": r"blocks.\1.mlp_norm.",
    },
    inside=r"(?:layers\.|emb)",
    unused=r"$^",
)


def from_hugging_face(raw: State, spec: ModelSpec, folder: Path) -> State:
    """Return the tensors of ``read_hugging_face`` under this project's names.

    Args:
        raw: tensors under their published names.
        spec: the model's shape.
        folder: where they come from, for errors.

    Raises:
        UserError: a tensor is missing, or differs from that of any ESM-2.
    """
    return fuse(raw, HUGGING_FACE, spec, folder)


def read_fair_esm(path: Path) -> tuple[ModelSpec, State]:
    """Read a fair-esm ``.pt`` file.

    Raises:
        UserError: it is not such a file, or a tensor is missing or differs from that of any ESM-2.
    """
    spec, raw = read_fair_esm_file(path)
    return spec, fuse(raw, FAIR_ESM, spec, path)


def read_fair_esm_file(path: Path) -> tuple[ModelSpec, State]:
    """Read the shape and all tensors of a fair-esm ``.pt`` file, under their published names.

    Raises:
        UserError: it is not such a file.
    """
    check_single(path)
    try:
        data = safe_load(path)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{path}: not a fair-esm ESM-2 checkpoint that can be opened safely "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    if not isinstance(data, Mapping) or not {"cfg", "model"} <= data.keys():
        raise UserError(
            f"{path}: not a fair-esm ESM-2 checkpoint, but {describe(data)}. Load it into a "
            "transformers model of its shape, call save_pretrained(folder), and give that folder."
        )
    try:
        config = vars(data["cfg"]["model"])
        spec = ModelSpec(
            name=path.stem,
            layers=size(config, "encoder_layers", path),
            dim=size(config, "encoder_embed_dim", path),
            heads=size(config, "encoder_attention_heads", path),
        )
        if spec.dim % spec.heads:
            raise ValueError(f"{spec.heads} heads do not divide the width {spec.dim}")
        if not config["token_dropout"]:
            raise ValueError("token_dropout is off, unlike in any ESM-2")
        if not is_state_dict(data["model"]):
            raise TypeError("its model is not tensors by their names")
        raw: State = {}
        add_tensors(raw, data["model"].items(), path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{path}: not a fair-esm ESM-2 checkpoint ({why}).") from error
    return spec, raw


def fuse(raw: State, names: Names, spec: ModelSpec, path: Path) -> State:
    """Join the query, key and value projections, and keep one copy of the rotary frequencies."""
    state = names.rename(raw, path)
    take = taker(state, raw, names, path)
    embeddings = take("embed_tokens.weight")
    if len(embeddings) != len(ESM2_TOKENS):
        raise UserError(
            f"{path}: a vocabulary of {len(embeddings)} tokens, unlike ESM-2's {len(ESM2_TOKENS)}."
        )
    fused = {
        "embed_tokens.weight": embeddings,
        "rotary.inv_freq": take_inv_freq(state, spec, path),
    }
    for layer in range(spec.layers):
        for kind in ("weight", "bias"):
            parts = [take(f"blocks.{layer}.{projection}.{kind}") for projection in "qkv"]
            fused[f"blocks.{layer}.qkv.{kind}"] = torch.cat(parts)
    fused |= state
    check_fit(fused, ESM2, spec, names, path)
    return fused


def take_inv_freq(state: State, spec: ModelSpec, path: Path) -> Tensor:
    """Return the rotary frequencies: the checkpoint's if it has them, otherwise the formula's."""
    copies = [state.pop(name) for name in list(state) if name.endswith("rotary.inv_freq")]
    if not copies:
        return exact_inv_freq(spec.dim // spec.heads)
    if any(not torch.equal(copies[0], copy) for copy in copies):
        raise UserError(f"{path}: its layers have different rotary frequencies, unlike any ESM-2.")
    return copies[0]
