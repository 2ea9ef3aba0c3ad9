"""Checkpoints that are one file each: of fair-esm (``.pt``) and of ESM C's authors (``.pth``)."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.memory import is_out_of_memory
from common.model_config import size
from common.model_files import check_single
from common.model_specs import ESM1, ESM2, Family, ModelSpec
from workers.models.esmc.checkpoint import is_esmc, shape_of
from workers.models.weight_files import (
    State,
    add_tensors,
    describe,
    first_line,
    is_state_dict,
    safe_load,
)

#: The architecture that fair-esm's files of ESM-1b and ESM-1v name.
ESM1_ARCHITECTURE = "roberta_large"


def read_single_file(path: Path) -> tuple[ModelSpec, State]:
    """Read the shape and all tensors of a file, under their published names.

    Raises:
        UserError: it is no such file.
    """
    check_single(path)
    try:
        data = safe_load(path)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{path}: not a checkpoint of fair-esm or ESM C that can be opened safely "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    raw: State = {}
    if is_state_dict(data):
        add_tensors(raw, data.items(), path)
        if is_esmc(raw):
            return shape_of(raw, path), raw
    if isinstance(data, Mapping) and {"cfg", "model"} <= data.keys():
        return fair_esm(data, ESM2, path)
    if isinstance(data, Mapping) and architecture_of(data) == ESM1_ARCHITECTURE:
        return fair_esm(data, ESM1, path)
    raise UserError(
        f"{path}: not a checkpoint of fair-esm or ESM C, but {describe(data)}. Load it into a "
        "transformers model of its shape, call save_pretrained(folder), and give that folder."
    )


def architecture_of(data: Mapping[str, Any]) -> str | None:
    """Return the architecture that an older file of fair-esm names."""
    arguments = data.get("args")
    return getattr(arguments, "arch", None) if "model" in data else None


def fair_esm(data: Mapping[str, Any], family: Family, path: Path) -> tuple[ModelSpec, State]:
    """Return the shape and the tensors of a file of fair-esm."""
    raw: State = {}
    try:
        given = data["cfg"]["model"] if family is ESM2 else data["args"]
        config = settings_of(given)
        if not is_state_dict(data["model"]):
            raise TypeError("its model is not tensors by their names")
        add_tensors(raw, data["model"].items(), path)
        spec = ModelSpec(
            name=path.stem,
            layers=size(config, "encoder_layers", path),
            dim=size(config, "encoder_embed_dim", path),
            heads=size(config, "encoder_attention_heads", path),
            family=family,
            embed_norm=any("emb_layer_norm_before." in name for name in raw),
        )
        if spec.dim % spec.heads:
            raise ValueError(f"{spec.heads} heads do not divide the width {spec.dim}")
        if not config["token_dropout"]:
            raise ValueError(f"token_dropout is off, unlike in any {family.name}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{path}: not a fair-esm {family.name} checkpoint ({why}).") from error
    return spec, raw


def settings_of(given: Namespace) -> dict[str, Any]:
    """Return the settings of a file, under ESM-2's names: some older ones lack the prefix."""
    found = vars(given)
    prefix = "encoder_"
    bare = {name.removeprefix(prefix): value for name, value in found.items()}
    return {prefix + name: value for name, value in bare.items()} | found
