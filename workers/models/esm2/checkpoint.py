"""ESM-2 checkpoints in Hugging Face's and fair-esm's format, under this project's names.

Their quirks are handled here and nowhere else.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common.alphabet import ESM2_TOKENS
from common.errors import UserError
from common.model_specs import ModelSpec
from workers.models.esm2.model import ESM2
from workers.models.rotary import exact_inv_freq
from workers.models.weight_files import Names, State, check_fit, taker

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


def is_fair_esm(raw: State) -> bool:
    """Return whether a checkpoint's tensors have the names of fair-esm."""
    return any("self_attn" in name for name in raw)


def names_of(raw: State) -> Names:
    """Return the format of a checkpoint's tensors."""
    return FAIR_ESM if is_fair_esm(raw) else HUGGING_FACE


def from_published(raw: State, spec: ModelSpec, place: Path) -> State:
    """Return a checkpoint's tensors under this project's names.

    Args:
        raw: tensors under their published names.
        spec: the model's shape.
        place: where they come from, for errors.

    Raises:
        UserError: a tensor is missing, or differs from that of any ESM-2.
    """
    names = names_of(raw)
    state = names.rename(raw, place)
    frequencies = take_inv_freq(state, spec, place)
    fused = fuse(state, taker(state, raw, names, place), spec, place)
    fused["rotary.inv_freq"] = frequencies
    check_fit(fused, ESM2, spec, names, place)
    return fused


def fuse(state: State, take: Callable[[str], Tensor], spec: ModelSpec, place: Path) -> State:
    """Join the query, key and value projections.

    Args:
        state: tensors under this project's names, of each projection by itself.
        take: ``weight_files.taker`` of them.
    """
    embeddings = take("embed_tokens.weight")
    if len(embeddings) != len(ESM2_TOKENS):
        raise UserError(
            f"{place}: a vocabulary of {len(embeddings)} tokens, unlike ESM-2's {len(ESM2_TOKENS)}."
        )
    fused = {"embed_tokens.weight": embeddings}
    for layer in range(spec.layers):
        for kind in ("weight", "bias"):
            parts = [take(f"blocks.{layer}.{projection}.{kind}") for projection in "qkv"]
            fused[f"blocks.{layer}.qkv.{kind}"] = torch.cat(parts)
    return fused | state


def take_inv_freq(state: State, spec: ModelSpec, path: Path) -> Tensor:
    """Return the rotary frequencies: the checkpoint's if it has them, otherwise the formula's."""
    copies = [state.pop(name) for name in list(state) if name.endswith("rotary.inv_freq")]
    if not copies:
        return exact_inv_freq(spec.dim // spec.heads)
    if any(not torch.equal(copies[0], copy) for copy in copies):
        raise UserError(f"{path}: its layers have different rotary frequencies, unlike any ESM-2.")
    return copies[0]
