"""``producer report``: a page about a job or a file of embeddings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from common.errors import UserError
from common.job.joint import is_joint
from common.paths import user_path
from common.wire.messages import JOB_NAME
from producer.cli.options import (
    Broker,
    Flag,
    Many,
    OutputPlace,
    StoreUrl,
    job_names,
    named_fleet,
    to_path,
)
from producer.fleet.report import report as report_file
from producer.terminal.console import console, say


def report(
    job: Annotated[str, Parameter(completer=job_names)],
    /,
    *,
    output: OutputPlace,
    csv: Annotated[Path | None, Parameter(converter=to_path)] = None,
    color: Annotated[tuple[str, ...], Many] = (),
    umap: bool = True,
    overwrite: Annotated[bool, Flag] = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Write a page about a job, or about a file of embeddings. Needs the extra report.

    Parameters
    ----------
    job
        The job, or the HDF5 file that fetch wrote. Of a job that is not finished, the page shows
        the batches that are done. Events are shown if Redis answers.
    output
        File that ends in .html, which needs nothing else and no network. An earlier report of
        this job is replaced.
    csv
        CSV or TSV file with a column of ids and others to colour the map by.
    color
        Columns of it; default: all (several: --color host family).
    umap
        Make a map by UMAP too, if umap-learn is installed; it may take minutes.
    overwrite
        Replace any other file too.
    """
    if is_joint(job):
        names = " or ".join(one.name for one in named_fleet(store=store).jobs_named(job))
        raise UserError(f"report: {job} has several models. Name the job of one: {names}.")
    write: Callable[..., Path] = (
        named_fleet(broker=broker, store=store).job(job).report
        if JOB_NAME.fullmatch(job)
        else partial(report_file, user_path(job))
    )
    with console.status(f"Writing {output} …"):
        path = write(output, csv=csv, color=color, umap=umap, overwrite=overwrite)
    say(f"Wrote a report to {path}: open it in a browser.")
