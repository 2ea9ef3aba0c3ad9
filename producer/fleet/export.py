"""A file of embeddings to another layout: where it may be written, and what it may replace."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from common.embeddings.file import EmbeddingFile
from common.job.output_form import Include
from common.model_source import ModelSource
from producer.fleet.output import Place, output_at, place_of
from producer.output import export as exporting
from producer.output.fetch import Fetched
from producer.output.file_rows import FileRows
from producer.output.wanted import Wanted, make_wanted


def export(
    file: str | os.PathLike[str],
    output: str | Path,
    *,
    overwrite: bool = False,
    layout: str | None = None,
    dtype: str | None = None,
    include: Include | Sequence[Include] = (),
    ids: str | Iterable[str] | None = None,
    model: str | None = None,
) -> Fetched:
    """Write a file of embeddings, as ``Job.fetch`` writes it by default, in another layout.

        export("e.h5", "e.parquet")
        export("e.h5", "uniprot.h5", layout="uniprot", include="mean")

    Args:
        file: the HDF5 file.
        output: the file or object to write; see ``Job.fetch`` for it and for all that follows.
        model: whose embeddings, of a file that has those of several.

    Raises:
        EmbeddingFileError: there is no such file, or it is damaged.
        UserError: the output cannot be written, or another one is there.
    """
    wanted = make_wanted(layout=layout, dtype=dtype, include=include, ids=ids)
    return export_file(file, place_of(output), overwrite=overwrite, wanted=wanted, model=model)


def export_file(
    path: str | os.PathLike[str],
    place: Place,
    *,
    overwrite: bool,
    wanted: Wanted,
    model: str | None = None,
) -> Fetched:
    """Write a file of embeddings to a place; see ``export``."""
    with EmbeddingFile(path, model) as file:
        attributes = file.attributes
        output = output_at(
            place,
            is_ours=lambda origin: origin.is_of(
                str(attributes.get("job", "")),
                attributes.get("model_digest"),
                for_partial="partial" in attributes,
            ),
            inputs=[file.path],
            models=[ModelSource(str(attributes.get("model", "")))],
            store=None,
            overwrite=overwrite,
            wanted=wanted,
            form=FileRows(file).form,
        )
        output.check()
        with output.target() as target:
            exported = exporting.export(
                file,
                target.path,
                output.wanted,
                before_replacing=target.before_replacing,
                check_room=target.check_room,
            )
    return replace(exported, path=output.place)
