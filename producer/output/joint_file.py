"""The file of a joint job: one HDF5 file with a group for each model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py

from common.embeddings.file import GROUPS
from producer.output.partial import locked_sink


def group_names(models: Sequence[str]) -> list[str]:
    """Return the names of the groups of several models, each of which is told from the others.

    A group has the model's name; of a path, its last part.
    """
    names: list[str] = []
    for model in models:
        name = model.rstrip("/").rpartition("/")[2] or model.replace("/", "_")
        names.append(name if name not in names else f"{name}.{len(names) + 1}")
    return names


def join_files(files: Mapping[str, Path], output: Path, attributes: Mapping[str, Any]) -> None:
    """Copy whole files of embeddings into groups of a new file.

    Args:
        files: one for each group, by its name.
        attributes: of the new file.

    Raises:
        OSError: a file cannot be read, or the new one not be written.
    """
    with locked_sink(output) as sink, h5py.File(sink, "w") as joined:
        for name, path in files.items():
            with h5py.File(path, "r") as file:
                file.copy("/", joined, name=name)
        for name, value in attributes.items():
            joined.attrs[name] = value
        joined.attrs[GROUPS] = list(files)
