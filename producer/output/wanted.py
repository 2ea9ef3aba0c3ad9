"""What a user wants of a job's embeddings: which rows and vectors, in which type and layout."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from common.embeddings.arrays import Embeddings
from common.errors import UserError
from common.job.output_form import Include, OutputForm, as_tuple
from producer.output.contents import Contents, Dtype
from producer.output.layouts.choice import LayoutName, choose
from producer.output.layouts.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which part of the embeddings is written, and how; by default all, in the default layout."""

    layout: LayoutName | None = None  # None: by the suffix
    dtype: Dtype | None = None  # None: as computed
    include: tuple[Include, ...] = ()  # empty: all that was computed
    ids: tuple[str, ...] | None = None  # None: all rows
    partial: bool = False  # only the rows of batches that are final now

    def __post_init__(self) -> None:
        if self.partial and self.ids is not None:
            raise UserError(
                "partial and ids: a partial file has all rows of the batches that are done. Leave "
                "out one of the two."
            )

    def layout_at(self, place: str | Path) -> Layout:
        """Return the layout of an output.

        Raises:
            UserError: there is none for its suffix, or another than the one that was named.
        """
        return choose(place, self.layout)

    def form_of(self, form: OutputForm) -> OutputForm:
        """Return the form of what is written, from that of what there is.

        Raises:
            UserError: something is wanted that was not computed.
        """
        # A job with logits of the classes of residues was submitted with this name too.
        of_residues = "class_logits" not in form.include and "residue_class_logits" in form.include
        named = {"class_logits": "residue_class_logits"} if of_residues else {}
        include = [named.get(name, name) for name in self.include]
        missing = [name for name in include if name not in form.include]
        if missing:
            raise UserError(
                f"include {missing[0]}: only {', '.join(form.include)} was computed. Submit the "
                f"input again with --include {' '.join((*form.include, *missing))}."
            )
        changes: dict[str, Any] = {}
        if self.include:
            changes["include"] = tuple(name for name in form.include if name in include)
        if self.dtype:
            changes["residue_dtype"] = self.dtype
        return form.model_copy(update=changes)

    def options(self) -> list[str]:
        """Return the options of a command that wants the same."""
        return [
            *([f"--layout={self.layout}"] if self.layout else []),
            *([f"--dtype={self.dtype}"] if self.dtype else []),
        ]


def make_wanted(
    *,
    layout: str | None = None,
    dtype: str | None = None,
    include: Include | Sequence[Include] = (),
    ids: str | Iterable[str] | None = None,
    partial: bool = False,
) -> Wanted:
    """Return what a caller of the Python API wants.

    Raises:
        UserError: a value is none of those that are possible.
    """
    for name, value, type_ in (("layout", layout, LayoutName), ("dtype", dtype, Dtype)):
        if value not in (None, *get_args(type_)):
            raise UserError(f"{name}: {value!r} is none of {', '.join(get_args(type_))}.")
    kept = as_tuple(include)
    for one in kept:
        if one not in get_args(Include):
            raise UserError(f"include: {one!r} is none of {', '.join(get_args(Include))}.")
    return Wanted(
        layout=layout,  # type: ignore[arg-type]  # it is one of LayoutName
        dtype=dtype,  # type: ignore[arg-type]
        include=kept,
        ids=None if ids is None else as_tuple(ids),
        partial=partial,
    )


def with_types_of(part: Embeddings, contents: Contents) -> Embeddings:
    """Return rows with vectors in the types that are written.

    Raises:
        UserError: a number is too large for its type.
    """
    form, pooled_dtype = contents.form, contents.pooled_dtype
    of_residues = [part.residues] if part.residues is not None else []
    as_residues = [*of_residues, *part.of_pairs.values()]
    if {v.dtype for v in as_residues} <= {np.dtype(form.residue_dtype)} and {
        v.dtype for v in part.pooled.values()
    } <= {np.dtype(pooled_dtype)}:
        return part
    scores = {name: converted(part, v, form.residue_dtype) for name, v in part.of_pairs.items()}
    return replace(part, scores={**part.scores, **scores}).with_vectors(
        {name: converted(part, v, pooled_dtype) for name, v in part.pooled.items()},
        None if part.residues is None else converted(part, part.residues, form.residue_dtype),
    )


def converted(part: Embeddings, values: np.ndarray[Any, Any], dtype: str) -> Any:
    if values.dtype == np.dtype(dtype):
        return values
    with np.errstate(over="ignore"):  # looked for below
        found = values.astype(dtype)
    too_large = np.isinf(found) & np.isfinite(values)
    if too_large.any():
        largest = float(np.abs(values[too_large]).max())
        raise UserError(
            f"A number of the rows {part.rows[0]:,} to {part.rows[-1]:,} is {largest:,.0f}, and "
            f"{dtype} has none above {float(np.finfo(dtype).max):,.0f}: leave out --dtype {dtype}."
        )
    return found
