"""The files that a model is loaded from: found by name, never unpickled.

Both sides need them: workers to load them, producers to refuse what no worker can load.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.adapters import CONFIG, MERGE, is_adapter, read_adapter
from common.errors import UserError

#: The names that transformers takes, in its order; each also in parts, which an index lists.
SETS = ("model.safetensors", "pytorch_model.bin")

#: Numbered parts, as transformers names them.
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")

#: Files beside the weights that are loaded.
BESIDE = ("config.json", "tokenizer.json", "vocab.txt")

#: The suffix of fair-esm's files, and those of all files that are a model each: ESM C's first ones
#: end in the other.
FAIR_ESM = ".pt"
SINGLE_FILES = (FAIR_ESM, ".pth")

#: Number of names listed in an error.
LISTED = 12

#: What a small file may be instead of weights, by its first bytes in lower case.
IMPOSTORS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run 'git lfs pull' there",
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"<?xml": "an answer of a web server: download the file itself",
}


def model_files(path: Path) -> list[Path]:
    """Return the files that a model is loaded from, in a fixed order; none if none are here.

    A producer may have an empty folder, or the configuration alone, where its workers have all.

    Raises:
        UserError: a model cannot be loaded from this path.
    """
    try:
        if not path.is_dir():
            return [check_single(path)] if os.access(path, os.R_OK) else []
        if not any(path.iterdir()) or ((path / "config.json").is_file() and not has_weights(path)):
            return []
    except PermissionError:
        return []  # the workers' user may be another
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    if is_adapter(path):
        return adapter_files(path)
    tokenizer = path / "tokenizer.json"
    files = [
        path / "config.json",
        *weight_files(path),
        *([tokenizer] if tokenizer.is_file() else []),
    ]
    return checked(files)


def adapter_files(folder: Path) -> list[Path]:
    """Return the files of an adapter and of its base; those of a base on the hub are not here."""
    adapter = read_adapter(folder)
    own = checked(adapter.files)
    if not own or adapter.base_folder is None:
        return own
    of_base = model_files(adapter.base_folder)
    return [*own, *of_base] if of_base else []


def checked(files: list[Path]) -> list[Path]:
    """Return files whose content was looked at; none if this user may not read all of them."""
    if not all(os.access(file, os.R_OK) for file in files):
        return []
    for file in files:
        check_content(file)
    return files


def check_single(file: Path) -> Path:
    """Return a fair-esm file.

    Raises:
        UserError: a folder is meant.
    """
    if file.suffix in {".safetensors", ".bin", ".json", ".txt"}:
        raise UserError(
            f"{file} is a single file. Name its folder {file.parent}, which also has config.json."
        )
    check_content(file)
    return file


def has_weights(folder: Path) -> bool:
    patterns = ("*.safetensors*", "*.bin*", "*.pt", "*.pth", "*.ckpt", CONFIG)
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def weight_files(folder: Path) -> dict[Path, set[str]]:
    """Return the files of one set of weights, each with its tensors if an index lists them.

    Raises:
        UserError: there is no such set, or a part is missing.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no config.json, which tells the model's shape. {listing(folder)}"
        )
    for name in SETS:
        if (folder / name).is_file():
            return {folder / name: set()}
        index = folder / f"{name}.index.json"
        found = files_of_index(index) if index.is_file() else parts(folder, name)
        if found:
            return found
    raise UserError(
        f"{folder}: no weights under a name that transformers loads, model.safetensors or "
        f"pytorch_model.bin. {listing(folder)}"
    )


def files_of_index(index: Path) -> dict[Path, set[str]]:
    """Return the files that an index lists, each with its tensors."""
    check_content(index)
    try:
        places = dict(json.loads(index.read_text())["weight_map"])
        found: dict[Path, set[str]] = {}
        for tensor, name in places.items():
            found.setdefault(index.parent / Path(name).name, set()).add(tensor)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index}: not a readable index of weights ({error!r}).") from error
    missing = sorted(file.name for file in found if not file.is_file())
    if missing:
        raise UserError(f"{index} lists {missing[0]}, which is missing. {listing(index.parent)}")
    return dict(sorted(found.items()))


def parts(folder: Path, name: str) -> dict[Path, set[str]]:
    """Return all numbered parts of a file, which has no index.

    Raises:
        UserError: some are missing, or they are of two sets.
    """
    stem, _, suffix = name.partition(".")
    found = [PART.fullmatch(file.name) for file in sorted(folder.iterdir())]
    numbered = [m for m in found if m and (m[1], m[4]) == (stem, f".{suffix}")]
    totals = {int(match[3]) for match in numbered}
    if len(totals) > 1 or (totals and len(numbered) != max(totals)):
        raise UserError(
            f"{folder}: {numbered[0][0]} and others are not one whole set of weights. "
            f"{listing(folder)}"
        )
    return {folder / match[0]: set() for match in numbered}


def chosen(names: Iterable[str], place: str) -> list[str]:
    """Return the names of the files that a copy of a folder needs, with one set of weights.

    Args:
        place: the folder, for errors.

    Raises:
        UserError: they are not a model.
    """
    found = sorted(names)
    if CONFIG in found:
        raise UserError(
            f"{place}: {CONFIG} makes this an adapter (PEFT), which is not served from a bucket. "
            f"Copy it to a folder of each worker, or merge it. {MERGE}"
        )
    weights = weights_in(found)
    if "config.json" not in found or not weights:
        missing = "config.json" if weights else "model.safetensors or pytorch_model.bin"
        raise UserError(f"{place}: no {missing}, so there is no model. {listed(found)}")
    return sorted({*weights, *(name for name in BESIDE if name in found)})


def weights_in(names: Sequence[str]) -> list[str]:
    """Return the names of the first set of weights, in the order in which they are looked for."""
    for name in SETS:
        stem, _, suffix = name.partition(".")
        index = f"{name}.index.json"
        if name in names:
            return [name]
        if index in names:
            return [index, *(other for other in names if other.endswith(f".{suffix}"))]
        parts = [other for other in names if (m := PART.fullmatch(other)) and m[1] == stem]
        if parts:
            return parts
    return []


def listing(folder: Path) -> str:
    """Return a sentence that lists what a folder has."""
    return listed(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())


def listed(given: Iterable[str]) -> str:
    names = sorted(given)
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"It has: {', '.join(names[:LISTED]) or 'nothing'}{more}."


def check_content(file: Path) -> None:
    """Check that a file is not another thing that downloads leave in its place.

    Raises:
        UserError: what it is.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(64).lstrip().lower()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from error
    if not start:
        raise UserError(f"{file} is empty: its download or copy did not finish.")
    for first, what in IMPOSTORS.items():
        if start.startswith(first):
            raise UserError(f"{file} is {what}.")
