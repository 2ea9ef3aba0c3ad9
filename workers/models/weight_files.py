"""Weight files of any model: finding them, opening them safely, and renaming their tensors."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from common.errors import UserError
from common.model_specs import ModelSpec, read_hugging_face_config

State = dict[str, Tensor]


def read_hugging_face(folder: Path) -> tuple[ModelSpec, State]:
    """Return the shape of a model and all its tensors, under their published names.

    Args:
        folder: contains ``config.json`` and weights in one or more files.

    Raises:
        UserError: a file is missing or unreadable, or the model's family is unknown.
    """
    config, files = folder / "config.json", weight_files(folder)
    if not files or not config.is_file():
        raise UserError(f"{folder}: needs config.json and *.safetensors or pytorch_model*.bin.")
    spec = read_hugging_face_config(config)
    return spec, {modern_name(name): t for file in files for name, t in read_tensors(file)}


def weight_files(folder: Path) -> list[Path]:
    """Return the files of one set of weights, safetensors if there are any."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def modern_name(name: str) -> str:
    """Return a tensor's modern name: old checkpoints have ``LayerNorm.gamma`` and ``.beta``."""
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
    """Open a pickled checkpoint without running anything in it."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )


def rename(raw: State, prefix: str, names: dict[str, str]) -> State:
    """Return tensors under this project's names.

    Tensors that match no pattern (heads, pooler) are dropped: embeddings do not need them.

    Args:
        raw: tensors under their published names.
        prefix: pattern that precedes every published name.
        names: ``{pattern of a published name: this project's name}``.
    """
    return {
        re.sub(prefix + pattern, new_name, name, count=1): tensor
        for name, tensor in raw.items()
        for pattern, new_name in names.items()
        if re.match(prefix + pattern, name)
    }


def taker(state: State, path: Path) -> Callable[[str], Tensor]:
    """Return a function that pops a tensor from ``state``, or raises UserError if it is missing."""

    def take(name: str) -> Tensor:
        try:
            return state.pop(name)
        except KeyError:
            raise UserError(f"{path}: {name} is missing from these weights.") from None

    return take


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, at most 200 characters."""
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's own text recommends opening the file unsafely.
        return "it is damaged, or contains more than weights"
    return (str(error).splitlines() or [""])[0][:200]
