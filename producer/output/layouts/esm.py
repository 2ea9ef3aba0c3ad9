"""A folder with a ``.pt`` file for each record, as esm-extract writes it."""

import csv
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from common.embeddings.arrays import Array, Embeddings
from common.embeddings.table import PRECISION_NAMES
from common.job.output_form import PAIR_SCORES
from producer.output.contents import Contents
from producer.output.layouts.layout import Layout
from producer.output.layouts.torch_file import Value, save
from producer.output.partial import locked_folder

#: The table of the files, and what made the embeddings. Both are written last.
INDEX, ATTRIBUTES = "index.csv", "attributes.json"

#: The most bytes of a file's name in usual file systems.
LONGEST_NAME = 255

#: Names of esm-extract for the kinds of vectors.
KINDS = {
    "per_residue": "representations",
    "mean": "mean_representations",
    "bos": "bos_representations",
    "max": "max_representations",
    "std": "std_representations",
}


class EsmLayout(Layout):
    """A folder of ``.pt`` files, each named by its header, and an index."""

    name = "esm"
    suffixes = ()
    is_one_file = False
    is_folder = True
    scores = PAIR_SCORES

    @contextmanager
    def create(self, path: Path, contents: Contents) -> Iterator["EsmWriter"]:
        with (
            locked_folder(path),
            (path / INDEX).open("w", encoding="utf-8", newline="") as index,
        ):
            yield EsmWriter(path, csv.writer(index, lineterminator="\n"), contents)

    def attributes_of(self, source: Path | BinaryIO) -> Mapping[str, Any] | None:
        assert isinstance(source, Path)
        found: dict[str, Any] = json.loads((source / ATTRIBUTES).read_text(encoding="utf-8"))
        with os.scandir(source) as entries:
            return found if sum(1 for _ in entries) == found["files"] + 2 else None

    def replace(self, partial: Path, output: Path) -> None:
        """Give a complete folder its name; an earlier one is moved away before, then deleted."""
        with ExitStack() as stack:
            if output.is_dir() and not output.is_symlink():
                old = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
                output.rename(old)
                stack.callback(shutil.rmtree, old, ignore_errors=True)
            else:
                output.unlink(missing_ok=True)
            partial.rename(output)

    def discard(self, partial: Path) -> None:
        shutil.rmtree(partial, ignore_errors=True)


class EsmWriter:
    """Writes a file for each record."""

    def __init__(self, folder: Path, index: Any, contents: Contents) -> None:
        self._folder = folder
        self._index = index
        self._kinds = [name for name in contents.form.include if name in KINDS]
        self._layers = contents.layers
        self._count = 0
        self._index.writerow(["file", "row", "id", "length", "input_length", "precision", "label"])

    def write(self, part: Embeddings) -> None:
        for position, header in enumerate(part.headers):
            values: dict[str, Value] = {"label": header}
            for kind in self._kinds:
                vectors = (
                    part.residues_of(position)
                    if kind == "per_residue"
                    else part.pooled[kind][position]
                )
                values[KINDS[kind]] = self._by_layer(vectors)
            values |= {name: part.pairs_of(position, name) for name in part.of_pairs}
            row = int(part.rows[position])
            name = self._save(header, row, values)
            self._index.writerow(
                [
                    *(name, row, part.ids[position]),
                    *(int(part.lengths[position]), int(part.input_lengths[position])),
                    *(PRECISION_NAMES[int(part.precision[position])], header),
                ]
            )
            self._count += 1

    def finish(self, attributes: Mapping[str, Any]) -> None:
        text = json.dumps({**attributes, "files": self._count}, indent=1)
        (self._folder / ATTRIBUTES).write_text(text, encoding="utf-8")

    def _by_layer(self, vectors: Array) -> dict[int, Array]:
        """Return vectors ``[*n, *W]`` by the number of their layer."""
        if len(self._layers) == 1:
            return {self._layers[0]: vectors}
        return {layer: vectors[..., k, :] for k, layer in enumerate(self._layers)}

    def _save(self, header: str, row: int, values: Mapping[str, Value]) -> str:
        """Save a record under the first name that is free; return it."""
        again = 1
        while True:
            name = safe_name(header, row, again)
            try:
                save(self._folder / name, values)
            except FileExistsError:
                again += 1
            else:
                return name


def safe_name(header: str, row: int, again: int = 1) -> str:
    """Return the name of a record's file: its header, as far as a name can have it.

    Args:
        again: how often the same name was tried.
    """
    name = re.sub(r"[/\\\0\n]", "_", header)
    if not name.strip(".") or name.startswith("."):
        name = f"row_{row}{name}"
    end = ".pt" if again == 1 else f"~{again}.pt"
    data = name.encode("utf-8", "surrogateescape")
    if len(data) + len(end) > LONGEST_NAME:
        # Long headers that begin alike have different ends.
        end = f"~{hashlib.sha256(data).hexdigest()[:12]}{end}"
        name = data[: LONGEST_NAME - len(end)].decode("utf-8", "ignore")
    return name + end
