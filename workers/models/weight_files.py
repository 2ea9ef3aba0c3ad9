"""Weight files of any model: opening them safely, and the names of their tensors."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from common.errors import UserError
from common.memory import is_out_of_memory
from common.model_files import check_content, weight_files
from common.model_specs import ModelSpec, read_hugging_face_config

State = dict[str, Tensor]

#: What wrappers of a whole model put before the names of its tensors: DistributedDataParallel,
#: torch.compile, and a module of PyTorch Lightning.
WRAPPERS = re.compile(r"^(?:(?:module|model)\.)+")
COMPILED = "_orig_mod."

#: The last part of a published name, which follows every pattern.
KIND = r"(?=(?:weight|bias|inv_freq)$)"

#: Parts of the names that an adapter gives to tensors.
ADAPTER = re.compile(r"lora_|base_layer|adapter|modules_to_save")
MERGE = " Merge the adapter into its model first (merge_and_unload)."

#: Number of names shown as samples.
SHOWN = 3


def read_hugging_face(folder: Path) -> tuple[ModelSpec, State]:
    """Return the shape of a model and all its tensors, under their published names.

    Args:
        folder: contains ``config.json`` and weights in one or more files.

    Raises:
        UserError: a file is missing or unreadable, the model's family is unknown, or a tensor is
            not where the index of the files has it.
    """
    files = weight_files(folder)
    check_content(folder / "config.json")
    spec = read_hugging_face_config(folder / "config.json")
    raw: State = {}
    for file, listed in files.items():
        tensors = dict(read_tensors(file))
        for name in sorted(listed - tensors.keys()):
            raise UserError(f"{file}: no tensor {name}, which the index of the weights lists here.")
        add_tensors(raw, tensors.items(), file)
    return spec, raw


def add_tensors(raw: State, tensors: Iterable[tuple[str, Tensor]], file: Path) -> None:
    """Add tensors under their published names.

    Raises:
        UserError: one is there already.
    """
    for given, tensor in tensors:
        name = published_name(given)
        if name in raw:
            raise UserError(
                f"{file}: {given} is in these weights twice, here and in another file or under "
                "another prefix. Remove one of them."
            )
        raw[name] = tensor


def published_name(name: str) -> str:
    """Return a tensor's name without wrappers, and the modern one of ``LayerNorm.gamma``."""
    name = WRAPPERS.sub("", name.replace(COMPILED, ""))
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    check_content(file)
    try:
        if file.suffix == ".bin":
            data = safe_load(file)
        else:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    yield name, tensors.get_tensor(name)
            return
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{file}: not a readable weights file ({first_line(error)}).") from error
    if isinstance(data, Mapping) and isinstance(data.get("state_dict"), Mapping):
        data = data["state_dict"]
    if not is_state_dict(data):
        raise UserError(f"{file}: not tensors by their names, but {describe(data)}.")
    yield from data.items()


def is_state_dict(data: Any) -> bool:
    return (
        isinstance(data, Mapping)
        and bool(data)
        and all(isinstance(name, str) for name in data)
        and all(isinstance(tensor, Tensor) for tensor in data.values())
    )


def describe(data: Any) -> str:
    """Return what a pickled file has, in words."""
    if is_state_dict(data):
        return f"tensors alone (a state dict), such as {samples(data)}"
    if not isinstance(data, Mapping):
        return f"an object of the class {type(data).__name__}"
    if "state_dict" in data:
        return f"a checkpoint of PyTorch Lightning, with {samples(data)}"
    if "args" in data:
        return f"a checkpoint of an older ESM model, with {samples(data)}"
    return f"a dictionary with {samples(data)}"


def samples(names: Iterable[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    found = list(map(str, names))
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return f"{', '.join(found[:SHOWN]) or 'nothing'}{more}"


def safe_load(file: Path) -> Any:
    """Open a pickled checkpoint without running anything in it."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )


@dataclass(frozen=True)
class Names:
    """The names of a model's tensors in one format, and this project's names."""

    prefix: str  # pattern that precedes every published name
    patterns: Mapping[str, str]  # {pattern of a published name: this project's name}
    inside: str  # pattern of the names that must all be known: of layers and embeddings
    unused: str  # pattern of those among them that have no influence

    def rename(self, raw: State, path: Path) -> State:
        """Return tensors under this project's names.

        Tensors outside the model (heads, pooler) are dropped: embeddings do not need them.

        Args:
            raw: tensors under their published names.
            path: where they come from, for errors.

        Raises:
            UserError: a tensor is of another model, or two have the same name here.
        """
        renamed: State = {}
        for name, tensor in raw.items():
            ours = self._ours(name)
            if ours is None:
                self._check_unused(name, path)
            elif ours in renamed:
                raise UserError(f"{path}: {name} is in these weights twice. Remove one of them.")
            elif not tensor.is_floating_point():
                raise UserError(f"{path}: {name} is {tensor.dtype}: these weights are quantised.")
            else:
                renamed[ours] = tensor
        return renamed

    def _ours(self, name: str) -> str | None:
        for pattern, ours in self.patterns.items():
            place = self.prefix + pattern + KIND
            if re.match(place, name):
                return re.sub(place, ours, name, count=1)
        return None

    def _check_unused(self, name: str, path: Path) -> None:
        if re.match(self.prefix + self.inside, name) and not re.search(self.unused, name):
            raise UserError(
                f"{path}: {name} is a tensor that this model does not have: these weights are of "
                f"another one.{MERGE if ADAPTER.search(name) else ''}"
            )

    def published(self, ours: str) -> str:
        """Return the published name, without a prefix, of one of this project's names."""
        for pattern, template in self.patterns.items():
            own = re.escape(template).replace(r"\\1", r"(\d+)")
            if re.match(own, ours):
                theirs = pattern.replace(r"(\d+)", r"\1").replace(r"\.", ".")
                return re.sub(own, theirs, ours, count=1)
        if ".qkv." in ours:
            return " or ".join(self.published(ours.replace("qkv", part)) for part in "qkv")
        return ours

    def missing(self, ours: str, raw: State, path: Path) -> UserError:
        """Return the error about a tensor that is not among ``raw``."""
        merge = MERGE if any(map(ADAPTER.search, raw)) else ""
        return UserError(f"{path}: no tensor {self.published(ours)}. It has {samples(raw)}.{merge}")


def taker(state: State, raw: State, names: Names, path: Path) -> Callable[[str], Tensor]:
    """Return a function that pops a tensor from ``state``, or raises UserError if it is missing.

    Args:
        state: tensors under this project's names.
        raw: the same under their published names.
        names: the names of their format.
        path: where they come from.
    """

    def take(name: str) -> Tensor:
        if name not in state:
            raise names.missing(name, raw, path)
        return state.pop(name)

    return take


def check_fit(
    state: State, model: Callable[[ModelSpec], nn.Module], spec: ModelSpec, names: Names, path: Path
) -> None:
    """Check that tensors are those of a model of this shape.

    Args:
        state: all of a checkpoint's tensors under this project's names.
        model: builds a model, on the meta device.
        spec: the model's shape.
        names: the names of the checkpoint's format.
        path: where the tensors come from, for errors.

    Raises:
        UserError: one is missing, is of another model, or has another shape.
    """
    with torch.device("meta"):
        expected: State = model(spec).state_dict()
    what = f"{spec.family.name} of {spec.layers} layers, width {spec.dim} and {spec.heads} heads"
    for name in expected:
        if name not in state:
            raise UserError(f"{path}: no tensor {names.published(name)}, unlike {what}.")
        found, right = tuple(state[name].shape), tuple(expected[name].shape)
        if found != right:
            raise UserError(
                f"{path}: {names.published(name)} has the shape {found}, but {what} has {right}."
            )
    for name in state.keys() - expected.keys():
        raise UserError(f"{path}: {names.published(name)} is a tensor too many for {what}.")


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, at most 200 characters."""
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's own text recommends opening the file unsafely.
        return "it is damaged, or contains more than weights"
    return (str(error).splitlines() or [""])[0][:200]
