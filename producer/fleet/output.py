"""Where a job's embeddings are written: a file of this machine, or an object in a bucket."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import UserError
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.model_source import ModelSource
from common.paths import user_path
from common.store import Store
from common.text import without_login
from producer.fleet.output_file import Origin, OutputFile, sources_of
from producer.fleet.output_object import OutputObject, s3_sources_of
from producer.output.contents import Contents
from producer.output.wanted import Wanted

Output = OutputFile | OutputObject

#: A file, or the URL of an object.
Place = Path | str


def place_of(text: str | Path) -> Place:
    """Return the place that a user names: a path, ``file:///path`` or ``s3://bucket/key``.

    Raises:
        UserError: it is a URL of another kind.
    """
    name = str(text)
    if isinstance(text, Path) and name.startswith("s3:/"):
        return f"s3://{name.removeprefix('s3:/')}"  # a Path has one slash for two
    if name.startswith("s3://"):
        return name
    if name.startswith(("file:///", "file://~")):
        return user_path(name.removeprefix("file://"))
    if re.match(r"\w[\w+.-]*:/", name):
        raise UserError(
            f"{without_login(name)} is a URL: name a file on this machine, or an object, s3://bucket/key.h5."
        )
    return user_path(text)


def working_file(place: Place) -> Path:
    """Return the path beside which a run on this machine keeps its files: here, for an object."""
    return place if isinstance(place, Path) else Path(place.rpartition("/")[2])


def output_at(
    place: Place,
    *,
    is_ours: Callable[[Origin], bool],
    inputs: Sequence[str],
    models: Sequence[ModelSource],
    store: Store | None,
    overwrite: bool,
    wanted: Wanted | None = None,
    form: OutputForm | None = None,
) -> Output:
    """Return the output at a place, with what it may replace.

    Args:
        is_ours: whether what is there may be replaced, by what it comes from.
        inputs: the names of the sources, which are not replaced.
        models: likewise, if they are files.
        store: likewise; None: the job's own, which is removed with it.
        overwrite: whether anything else is replaced.
        wanted: what is written, and how; None: all, in the layout of the suffix.
        form: what was, or will be, computed; None: not known.
    """
    wanted = wanted or Wanted()
    if isinstance(place, Path):
        sources = sources_of(inputs, models, store)
        return OutputFile(
            path=place,
            is_ours=is_ours,
            sources=sources,
            overwrite=overwrite,
            wanted=wanted,
            form=form,
        )
    return OutputObject(
        url=place,
        is_ours=is_ours,
        sources=s3_sources_of(inputs, models, store),
        overwrite=overwrite,
        wanted=wanted,
        form=form,
    )


def bytes_of(output: Output, manifest: Manifest, dim: int) -> int:
    """Estimate the bytes of a job's output, before anything is computed."""
    wanted = output.wanted
    contents = Contents(
        form=wanted.form_of(manifest.form),
        pooled_dtype=wanted.dtype or "float32",
        records=manifest.report.records,
        residues=manifest.report.residues,
        pairs=manifest.report.pairs,
        dim=dim,
        attributes={},
    )
    return output.layout.bytes_of(contents)
