"""The settings of a Hugging Face ``config.json`` that have influence on embeddings.

Each one is used, or refused unless it has the value that this project's code implements. Sizes that
are missing here are those of the tensors, which are checked when they are loaded.
"""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.alphabet import ESM2_TOKENS
from common.errors import UserError

Config = Mapping[str, Any]

#: The value of ``layer_norm_eps`` where a file has none: of transformers' ESM and BERT, and of
#: ESM C, whose files never have one.
DEFAULT_EPS, ESMC_EPS = 1e-12, 1e-5

#: Settings of any model, with the values that they may have; None stands for a missing one too.
COMMON_SETTINGS: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", None),
    "is_decoder": (False, None),  # otherwise attention would be causal
    "add_cross_attention": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

#: The same of ESM-2 alone. The first tells it from the older models of its family, whose vocabulary
#: and file format are the same.
ESM2_SETTINGS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("rotary",),
    "emb_layer_norm_before": (False, None),
    "token_dropout": (True,),
    "mask_token_id": (ESM2_TOKENS.index("<mask>"), None),  # token dropout leaves it out
    "rope_theta": (10_000, None),
    "rope_scaling": (None,),
    # As newer versions of transformers write the two.
    "rope_parameters": (
        None,
        {"rope_theta": 10_000, "rope_type": "default"},
        {"rope_theta": 10_000},
        {"rope_type": "default"},
        {},
    ),
    "is_folding_model": (False, None),
    **COMMON_SETTINGS,
}

#: The same of ESM-1b and ESM-1v, whose positions are learned.
ESM1_SETTINGS: dict[str, tuple[Any, ...]] = {
    **ESM2_SETTINGS,
    "position_embedding_type": ("absolute",),
    "emb_layer_norm_before": (False, True, None),
    "max_position_embeddings": (1026,),
}

#: The same of ESM C: in transformers' format, and in that of its authors before.
ESMC_SETTINGS: dict[str, tuple[Any, ...]] = {
    **COMMON_SETTINGS,
    "hidden_act": ("silu", None),
    "vocab_size": (64, None),
    "rope_parameters": ESM2_SETTINGS["rope_parameters"],
    "rope_scaling": (None,),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "qk_layernorm": (True, None),
    "scale_residue": (True, None),
    "expansion_ratio": (8 / 3, None),
}

#: Names of sizes in the format of ESM C's authors.
OTHER_NAMES = {
    "num_hidden_layers": "n_layers",
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
}

#: The same of DNABERT-S, which has ALiBi whatever its file says of positions.
DNABERT_S_SETTINGS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute", "alibi", None),
    **COMMON_SETTINGS,
}


#: The largest size of any kind: twice that of the largest model, ESM-2 15B. With more, to find that
#: the tensors do not fit would take minutes, or overflow.
LARGEST_SIZE = 10_000


def read_config(path: Path) -> Config:
    """Return a configuration.

    Raises:
        UserError: the file cannot be read, or is not a JSON object.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not a readable model configuration ({error!r}).") from error
    return parse_config(text, path)


def parse_config(text: bytes, path: Path | str) -> Config:
    """Return a configuration.

    Raises:
        UserError: the text is not a JSON object.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable model configuration ({error!r}).") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a readable model configuration (no JSON object).")
    return config


def is_dnabert_s(config: Config) -> bool:
    """Return whether it is DNABERT-S, which calls itself a BERT: only ALiBi tells it apart."""
    return "alibi_starting_size" in config


def check_settings(config: Config, path: Path | str) -> str:
    """Check that the code implements what a configuration asks for; return the family's name.

    Raises:
        UserError: the model is of no known family, or a setting has another value.
    """
    name, settings = family_settings(config, path)
    for setting, allowed in settings.items():
        if config.get(setting) not in allowed:
            raise UserError(
                f"{path}: {setting} is {reprlib.repr(config.get(setting))}, but {name} has "
                f"{allowed[0]!r}: this is another model, which is not supported."
            )
    return name


def family_settings(config: Config, path: Path | str) -> tuple[str, Mapping[str, tuple[Any, ...]]]:
    """Return the name of a model's family, and the values that its settings may have."""
    if is_dnabert_s(config):
        return "DNABERT-S", DNABERT_S_SETTINGS
    match config.get("model_type"):
        case "esm" if config.get("position_embedding_type") == "absolute":
            return "ESM-1", ESM1_SETTINGS
        case "esm":
            return "ESM-2", ESM2_SETTINGS
        case "esmc":
            return "ESM C", ESMC_SETTINGS
    raise UserError(
        f"{path}: model_type is {reprlib.repr(config.get('model_type'))}, but only ESM-2, ESM-1b "
        "and ESM-1v ('esm'), ESM C ('esmc'), and DNABERT-S and DNABERT-2 ('bert' with "
        "'alibi_starting_size') can be served from a folder."
    )


def size(config: Config, name: str, path: Path | str) -> int:
    """Return a size.

    Raises:
        UserError: it is missing, or not a whole number from 1 to ``LARGEST_SIZE``.
    """
    value = config.get(name, config.get(OTHER_NAMES[name]) if name in OTHER_NAMES else None)
    if type(value) is not int or not 1 <= value <= LARGEST_SIZE:
        shown = reprlib.repr(value)
        raise UserError(
            f"{path}: not a readable model configuration ({name} is {shown}, not a whole number "
            f"from 1 to {LARGEST_SIZE:,})."
        )
    return value


def layer_norm_eps(config: Config, path: Path | str) -> float:
    """Return what LayerNorm adds to the variance.

    Raises:
        UserError: it is not a small number.
    """
    default = ESMC_EPS if config.get("model_type") == "esmc" else DEFAULT_EPS
    value = config.get("layer_norm_eps", default)
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise UserError(
            f"{path}: layer_norm_eps is {reprlib.repr(value)}, not a number from 0 to 1."
        )
    return float(value)
