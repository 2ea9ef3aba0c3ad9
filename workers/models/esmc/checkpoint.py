"""ESM C's checkpoints under this project's names, in the formats that its authors have published.

Their quirks are handled here and nowhere else.
"""

import re
from pathlib import Path

import torch

from common.errors import UserError
from common.model_specs import ESMC as FAMILY
from common.model_specs import ModelSpec
from workers.models.esmc.model import ESMC, VOCABULARY
from workers.models.rotary import exact_inv_freq
from workers.models.weight_files import Names, State, check_fit, describe, taker

#: Width of a head in all published models.
HEAD_DIM = 64

#: Parts of this project's tensors, in order, where a format has each by itself.
PARTS = {"qkv": ("q", "k", "v"), "fc1": ("gate", "up")}

#: The format of transformers, and of the hub.
HUGGING_FACE = Names(
    prefix=r"(?:esmc\.)?",
    patterns={
        r"embed_tokens\.": "embed_tokens.",
        r"norm\.": "final_norm.",
        r"layers\.(\d+)\.input_layernorm\.": r"blocks.\1.attention_norm.",
        r"layers\.(\d+)\.self_attn\.q_proj\.": r"blocks.\1.q.",
        r"layers\.(\d+)\.self_attn\.k_proj\.": r"blocks.\1.k.",
        r"layers\.(\d+)\.self_attn\.v_proj\.": r"blocks.\1.v.",
        r"layers\.(\d+)\.self_attn\.o_proj\.": r"blocks.\1.out.",
        r"layers\.(\d+)\.self_attn\.q_norm\.": r"blocks.\1.q_norm.",
        r"layers\.(\d+)\.self_attn\.k_norm\.": r"blocks.\1.k_norm.",
        r"layers\.(\d+)\.post_attention_layernorm\.": r"blocks.\1.mlp_norm.",
        r"layers\.(\d+)\.mlp\.gate_proj\.": r"blocks.\1.gate.",
        r"layers\.(\d+)\.mlp\.up_proj\.": r"blocks.\1.up.",
        r"layers\.(\d+)\.mlp\.down_proj\.": r"blocks.\1.fc2.",
    },
    inside=r"(?:embed_tokens|layers|norm)\.",
    unused=r"inv_freq$",
)

#: The formats of the package ``esm``: of its ``.pth`` files, and of its folders for Transformer
#: Engine, whose LayerNorms are parts of what reads them.
ESM = Names(
    prefix=r"(?:esmc\.)?",
    patterns={
        r"embed\.": "embed_tokens.",
        r"transformer\.norm\.": "final_norm.",
        r"transformer\.blocks\.(\d+)\.attn\.layernorm_qkv\.0\.": r"blocks.\1.attention_norm.",
        r"transformer\.blocks\.(\d+)\.attn\.layernorm_qkv\.layer_norm_": (
            r"blocks.\1.attention_norm."
        ),
        r"transformer\.blocks\.(\d+)\.attn\.layernorm_qkv\.(?:1\.)?": r"blocks.\1.qkv.",
        r"transformer\.blocks\.(\d+)\.attn\.q_ln\.": r"blocks.\1.q_norm.",
        r"transformer\.blocks\.(\d+)\.attn\.k_ln\.": r"blocks.\1.k_norm.",
        r"transformer\.blocks\.(\d+)\.attn\.out_proj\.": r"blocks.\1.out.",
        r"transformer\.blocks\.(\d+)\.ffn\.(?:0\.|layer_norm_)": r"blocks.\1.mlp_norm.",
        r"transformer\.blocks\.(\d+)\.ffn\.(?:1\.|fc1_)": r"blocks.\1.fc1.",
        r"transformer\.blocks\.(\d+)\.ffn\.(?:3\.|fc2_)": r"blocks.\1.fc2.",
    },
    inside=r"(?:embed|transformer)\.",
    unused=r"inv_freq$|_extra_state$",
)

BLOCK = re.compile(r"(?:esmc\.)?transformer\.blocks\.(\d+)\.")


def names_of(raw: State) -> Names:
    """Return the format of a checkpoint's tensors."""
    return ESM if any(BLOCK.match(name) for name in raw) else HUGGING_FACE


def from_published(raw: State, spec: ModelSpec, folder: Path) -> State:
    """Return the tensors of a folder or file under this project's names.

    Args:
        raw: tensors under their published names.
        spec: the model's shape.
        folder: where they come from, for errors.

    Raises:
        UserError: a tensor is missing, or differs from that of any ESM C.
    """
    names = names_of(raw)
    state = names.rename(raw, folder)
    take = taker(state, raw, names, folder)
    words = take("embed_tokens.weight")
    if len(words) != VOCABULARY:
        raise UserError(
            f"{folder}: a vocabulary of {len(words)} tokens, unlike ESM C's {VOCABULARY}."
        )
    fused = {
        "embed_tokens.weight": words,
        "rotary.inv_freq": exact_inv_freq(spec.dim // spec.heads),  # no checkpoint has them
    }
    if names is HUGGING_FACE:
        for layer in range(spec.layers):
            for name, parts in PARTS.items():
                tensors = [take(f"blocks.{layer}.{part}.weight") for part in parts]
                fused[f"blocks.{layer}.{name}.weight"] = torch.cat(tensors)
    fused |= state
    check_fit(fused, ESMC, spec, names, folder)
    return fused


def is_esmc(raw: State) -> bool:
    """Return whether the tensors of a file without a configuration are ESM C's."""
    return "transformer.norm.weight" in raw and "transformer.blocks.0.attn.q_ln.weight" in raw


def shape_of(raw: State, path: Path) -> ModelSpec:
    """Return the shape that the tensors of a ``.pth`` file have."""
    dim = raw["transformer.norm.weight"].shape[0]
    layers = {int(match[1]) for name in raw if (match := BLOCK.match(name))}
    if dim % HEAD_DIM or sorted(layers) != list(range(len(layers))):
        raise UserError(f"{path}: not a whole ESM C, but {describe(raw)}.")
    return ModelSpec(
        name=path.stem, layers=len(layers), dim=dim, heads=dim // HEAD_DIM, family=FAMILY
    )
