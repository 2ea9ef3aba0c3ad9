"""Files with weights of any model: how they are found, opened safely, and their tensors renamed."""

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
    """The shape of a model and all its tensors, under their published names.

    Args:
        folder: with ``config.json``, and weights in one or more files.

    Raises:
        UserError: something is missing, unreadable, or of no model that is known here.
    """
    config, files = folder / "config.json", weight_files(folder)
    if not files or not config.is_file():
        raise UserError(f"{folder}: needs config.json and *.safetensors or pytorch_model*.bin.")
    spec = read_hugging_face_config(config)
    return spec, {modern(name): tensor for file in files for name, tensor in read_tensors(file)}


def weight_files(folder: Path) -> list[Path]:
    """The files of one set of weights: safetensors if there are any."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def modern(name: str) -> str:
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


def rename(raw: State, prefix: str, names: dict[str, str]) -> State:
    """The tensors under our names, ``{pattern of theirs: ours}``.

    Those that no pattern names (heads, pooler) are not needed for embeddings, and left out.
    ``prefix`` is a pattern too, of what stands before each of their names.
    """
    return {
        re.sub(prefix + theirs, ours, name, count=1): tensor
        for name, tensor in raw.items()
        for theirs, ours in names.items()
        if re.match(prefix + theirs, name)
    }


def taker(state: State, path: Path) -> Callable[[str], Tensor]:
    """A function that takes a tensor out of ``state``; one that is missing is a ``UserError``."""

    def take(name: str) -> Tensor:
        try:
            return state.pop(name)
        except KeyError:
            raise UserError(f"{path}: {name} is missing from these weights.") from None

    return take


def first_line(error: Exception) -> str:
    """What an error of a library says, short enough for one of ours."""
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's own text recommends to open it unsafely.
        return "it is damaged, or holds more than weights"
    return (str(error).splitlines() or [""])[0][:200]
