"""A report: where it may be written, and what it may replace."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from common.embeddings.file import EmbeddingFile
from common.errors import UserError
from common.paths import beginning, check_has_folder, user_path
from producer.fleet.output import place_of
from producer.fleet.output_file import is_same
from producer.output.layouts.choice import BY_SUFFIX
from producer.output.partial import partial_of
from producer.report.collect import Asked, report_of_file
from producer.report.contents import Report
from producer.report.page import job_mark, page_of, plotly

#: The suffix of a page.
SUFFIX = ".html"


def report(
    file: str | os.PathLike[str],
    path: str | Path,
    *,
    overwrite: bool = False,
    csv: str | Path | None = None,
    color: str | Iterable[str] = (),
    umap: bool = True,
) -> Path:
    """Write a page about a file of embeddings, as ``Job.report`` does about a job.

        report("e.h5", "report.html", csv="hosts.csv", color="host")

    Args:
        file: the HDF5 file.
        path: the page to write, ``.html``; see ``Job.report`` for it and for all that follows.

    Raises:
        EmbeddingFileError: there is no such file, or it is damaged.
        UserError: the page cannot be written, or another file is there.
    """
    asked = asked_of(csv, color, umap=umap)
    layout = BY_SUFFIX.get(Path(file).suffix)
    if layout is not None and layout.name != "h5":
        raise UserError(
            f"{file}: a report is made of an HDF5 file (.h5), as fetch writes it, or of a job."
        )
    with EmbeddingFile(file) as source:
        job = str(source.attributes.get("job", "")) or Path(source.path).name
        sources = [Path(source.path)]
        return write_report(
            path, job, lambda: report_of_file(source, asked), asked, sources, overwrite=overwrite
        )


def asked_of(csv: str | Path | None, color: str | Iterable[str], *, umap: bool) -> Asked:
    """Return what a report is asked for.

    Raises:
        UserError: columns of no table.
    """
    colours = (color,) if isinstance(color, str) else tuple(color)
    if colours and csv is None:
        raise UserError(
            f"--color {colours[0]}: name the table that has this column by --csv FILE (in Python: "
            "csv=FILE). Length, precision and source need none."
        )
    return Asked(None if csv is None else user_path(csv), colours, umap)


def write_report(
    place: str | Path,
    job: str,
    made: Callable[[], Report],
    asked: Asked,
    sources: Iterable[Path] = (),
    *,
    overwrite: bool,
) -> Path:
    """Write a report to a page, after a check that it may be; return its path.

    Args:
        job: the job, an earlier report of which is replaced.
        made: makes the report, which may take long.
        sources: files that must stay, beside the table.

    Raises:
        UserError: the page cannot be written, or another file is there.
    """
    path = page_at(place)
    check_has_folder(path)
    kept = [*sources, *([asked.csv] if asked.csv else [])]
    check_replaced(path, job, kept, overwrite=overwrite)
    library = plotly()
    text = page_of(made(), library)
    partial = partial_of(path)
    try:
        partial.write_text(text, "utf-8")
        check_replaced(path, job, kept, overwrite=overwrite)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.", path=path) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def page_at(place: str | Path) -> Path:
    """Return the path of a page.

    Raises:
        UserError: it is an object in a bucket, or has another suffix.
    """
    path = place_of(place)
    if isinstance(path, str):
        raise UserError(f"{path}: a report is written to this machine; name a file, report.html.")
    if path.suffix.lower() != SUFFIX:
        raise UserError(
            f"{path}: a report is a page of HTML. Name a file that ends in {SUFFIX}, such as "
            f"{path.with_suffix(SUFFIX).name}.",
            path=path,
        )
    return path


def check_replaced(path: Path, job: str, kept: Iterable[Path], *, overwrite: bool) -> None:
    """Check that a page is not there yet, or may be replaced.

    Raises:
        UserError: it is something else than a report of the job.
    """
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UserError(f"{path} is not a file: name another one (-o).", path=path)
    if any(is_same(path, source) for source in kept):
        raise UserError(f"{path} is what the report is made from: name another (-o).", path=path)
    if not overwrite and job_mark(job).encode() not in beginning(path):
        raise UserError(
            f"{path} exists and is not a report of {job}: name another file (-o), or replace it "
            "with --overwrite (in Python: overwrite=True).",
            path=path,
        )
