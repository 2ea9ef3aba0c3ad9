"""Choosing a layout: by the suffix of the output, or by its name."""

from pathlib import Path, PurePath
from typing import Literal

from common.errors import UserError
from producer.output.layouts.anndata import AnnDataLayout
from producer.output.layouts.columnar import ColumnarLayout
from producer.output.layouts.esm import EsmLayout
from producer.output.layouts.layout import Layout
from producer.output.layouts.npy import NpyLayout
from producer.output.layouts.npz import NpzLayout
from producer.output.layouts.parquet import ParquetLayout
from producer.output.layouts.per_id import PerIdLayout
from producer.output.layouts.safetensors import SafetensorsLayout
from producer.output.layouts.text import CsvLayout, TsvLayout

LayoutName = Literal[
    "h5", "uniprot", "esm", "parquet", "npz", "npy", "csv", "tsv", "safetensors", "h5ad"
]

#: All layouts by their names. Of two with a suffix, the first is the one that the suffix chooses.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        *(ColumnarLayout(), PerIdLayout(), EsmLayout(), ParquetLayout(), NpzLayout()),
        *(NpyLayout(), CsvLayout(), TsvLayout(), SafetensorsLayout(), AnnDataLayout()),
    )
}

#: The layout of each suffix, if none is named.
BY_SUFFIX = {suffix: layout for layout in reversed(LAYOUTS.values()) for suffix in layout.suffixes}


def choose(place: str | Path, name: LayoutName | None) -> Layout:
    """Return the layout of an output.

    Raises:
        UserError: no layout has its suffix, or the one that was named does not.
    """
    path = PurePath(place)
    suffix = path.suffix.lower()
    if name is None:
        if suffix in BY_SUFFIX:
            return BY_SUFFIX[suffix]
        known = ", ".join(dict.fromkeys(s for item in LAYOUTS.values() for s in item.suffixes))
        raise UserError(
            f"{place}: the suffix says how embeddings are written, and is none of {known}. Name "
            f"{better(place, '.h5')}, or, for a folder of .pt files as of esm-extract, add "
            "--layout esm.",
            path=place,
        )
    layout = LAYOUTS[name]
    if layout.is_folder:
        if suffix in BY_SUFFIX:
            raise UserError(
                f"{place}: layout {name} is a folder of files: give it a name without {suffix}, "
                f"such as {better(place, '')}.",
                path=place,
            )
    elif suffix not in layout.suffixes:
        raise UserError(
            f"{place}: a file of layout {name} is named {' or '.join(layout.suffixes)}, such as "
            f"{better(place, layout.suffixes[0])}.",
            path=place,
        )
    return layout


def suffix_of(name: LayoutName | None) -> str:
    """Return the usual suffix of a layout; None: the default one."""
    return next(iter(LAYOUTS[name or "h5"].suffixes), "")


def better(place: str | Path, suffix: str) -> str:
    """Return the name of an output with another suffix."""
    text = str(place)
    path = PurePath(text)
    stem = path.stem.lstrip(".") or "embeddings"
    return text[: len(text) - len(path.name)] + stem + suffix
