"""The file of a classifier: VirNucPro's own, a state dict, or safetensors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from common.errors import UserError
from common.paths import user_path
from producer.virnucpro.classifier import STATE, Classifier
from producer.virnucpro.pickled import Module, attributes_of, mapping, read_torch_file, state_of

#: What a file says that it is, in its metadata.
KIND = "VirNucPro classifier"

SUFFIX = ".safetensors"

#: The names of the published files, which alone say what chunks they are for.
PUBLISHED = re.compile(r"(?<!\d)(\d{3,4})_model")

#: Keys under which a training script keeps a state dict.
WRAPPERS = ("state_dict", "model_state_dict")


def read_classifier(path: str | Path) -> Classifier:
    """Read a classifier: a module pickled whole, as published, a state dict, or safetensors.

    Nothing in the file is run.

    Raises:
        UserError: there is no such file, or it is no classifier of VirNucPro.
    """
    file = user_path(path)
    if not file.is_file():
        raise UserError(
            f"{file}: no such file. The classifiers of VirNucPro, 300_model.pth and 500_model.pth, "
            "are in its repository.",
            path=file,
        )
    if file.suffix == SUFFIX:
        return read_safetensors(file)
    found = read_torch_file(file)
    more: dict[str, Any] = {}
    if named := PUBLISHED.search(file.name):
        more["chunk"] = int(named[1])
    if isinstance(found, Module):
        norm = mapping(attributes_of(found).get("_modules")).get("bn1")
        if isinstance(norm, Module):
            more["norm_eps"] = float(attributes_of(norm).get("eps", 1e-5))
        found = state_of(found)
    found = next((found[name] for name in WRAPPERS if name in mapping(found)), found)
    state = {name.removeprefix("module."): value for name, value in mapping(found).items()}
    return Classifier.of_state(state, str(file), **more)


def read_safetensors(path: Path) -> Classifier:
    """Read what ``write_classifier`` wrote, or a state dict that was saved so."""
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no safetensors file, or is damaged ({error}).") from error
    return Classifier.of_state(state, str(path), **fields_of(metadata, path))


def fields_of(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return what the metadata of a file say of a classifier.

    Raises:
        UserError: they cannot be read.
    """
    try:
        found: dict[str, Any] = {"norm_eps": float(metadata.get("norm_eps", "1e-5"))}
        if "chunk" in metadata:
            found["chunk"] = int(metadata["chunk"])
    except ValueError as error:
        raise UserError(f"{path}: its metadata are damaged ({error}).", path=path) from error
    if "dna_model" in metadata and "protein_model" in metadata:
        found["models"] = metadata["dna_model"], metadata["protein_model"]
    return found


def write_classifier(path: Path, classifier: Classifier) -> None:
    """Write a classifier as safetensors.

    Raises:
        OSError: the file cannot be written.
    """
    metadata = {"format": "pt", "kind": KIND, "norm_eps": repr(classifier.norm_eps)}
    if classifier.chunk is not None:
        metadata["chunk"] = str(classifier.chunk)
    if classifier.models is not None:
        metadata["dna_model"], metadata["protein_model"] = classifier.models
    arrays = {name: np.ascontiguousarray(array) for name, array in classifier.state().items()}
    assert set(arrays) == {name for name, _ in STATE.values()}
    save_file(arrays, path, metadata)
