"""Commands for the embeddings of a finished job. They need only the store, no Redis."""

import sys
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from common.errors import NotReadyError, UserError
from common.job.joint import is_joint
from common.job.layout import quarantine_prefix
from common.job.output_form import Include
from producer.cli.joint import fetch_joint
from producer.cli.options import (
    EXIT_FAILED,
    EXIT_NOT_READY,
    Broker,
    DtypeOption,
    Flag,
    JobName,
    Json,
    LayoutOption,
    Many,
    OutputPlace,
    Several,
    StoreUrl,
    named_fleet,
)
from producer.cli.watch import watch_job
from producer.fleet.export import export_file
from producer.fleet.following import FollowedFile
from producer.fleet.job import Job
from producer.fleet.joint import JointJob
from producer.fleet.output import Output
from producer.output.chosen import ids_named
from producer.output.contents import Dtype
from producer.output.layouts.choice import LayoutName
from producer.output.wanted import Wanted
from producer.terminal.console import console, print_line
from producer.terminal.documents import Verification
from producer.terminal.report import report_damage, report_exported, report_fetched


def fetch(
    job: JobName,
    /,
    *,
    output: OutputPlace,
    overwrite: Annotated[bool, Flag] = False,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    include: Annotated[tuple[Include, ...], Several] = (),
    ids: Annotated[tuple[str, ...], Many] = (),
    follow: Annotated[bool, Flag] = False,
    partial: Annotated[bool, Flag] = False,
    store: StoreUrl = None,
    broker: Broker = None,
) -> None:
    """Write a job's embeddings to one file. Of a finished one it needs only the store, no Redis.

    Parameters
    ----------
    output
        File, whose suffix chooses the layout: .h5, .parquet, .npz, .npy, .csv, .tsv, .safetensors
        or .h5ad; or object, s3://bucket/key.h5, which is written to TMPDIR first. An earlier one
        of this job is replaced.
    overwrite
        Replace any other file too.
    include
        Vectors to write; default: all that were computed (several: --include mean bos).
    ids
        Write only these rows: ids, or files with an id in each line (several: --ids P69905 P68871).
    follow
        Wait for the job, and write its batches as they are done; the file has its name at the end.
    partial
        Write only the rows of the batches that are done now.
    """
    if follow and partial:
        raise UserError("--follow and --partial: a file is whole or not. Leave out one of the two.")
    fleet = named_fleet(broker=broker, store=store)
    wanted = replace(wanted_of(layout, dtype, include, ids), partial=partial)
    if is_joint(job):
        fetch_joint(JointJob(fleet, job), output, wanted, overwrite=overwrite, follow=follow)
        return
    found = fleet.job(job)
    file = found.output_file(output, overwrite=overwrite, wanted=wanted)
    try:
        write_output(found, file)
    except NotReadyError:
        if not follow:
            raise
        fleet.connect()
        write_while_it_runs(found, file)


def export(
    file: Annotated[str, Parameter(name="FILE")],
    /,
    *,
    output: OutputPlace,
    overwrite: Annotated[bool, Flag] = False,
    layout: LayoutOption = None,
    dtype: DtypeOption = None,
    include: Annotated[tuple[Include, ...], Several] = (),
    ids: Annotated[tuple[str, ...], Many] = (),
    model: str | None = None,
) -> None:
    """Write a file of embeddings, as fetch writes it by default, in another layout.

    Needs neither the store nor Redis.

    Parameters
    ----------
    file
        HDF5 file that fetch or submit wrote.
    output
        File or object to write, as of fetch.
    overwrite
        Replace any other file too.
    include
        Vectors to write; default: all that the file has (several: --include mean bos).
    ids
        Write only these rows: ids, or files with an id in each line (several: --ids P69905 P68871).
    model
        Whose embeddings to write, of a file that has those of several models.
    """
    wanted = wanted_of(layout, dtype, include, ids)
    with console.status(f"Writing {output} …"):
        exported = export_file(file, output, overwrite=overwrite, wanted=wanted, model=model)
    report_exported(exported)


def wanted_of(
    layout: LayoutName | None,
    dtype: Dtype | None,
    include: tuple[Include, ...],
    ids: tuple[str, ...],
) -> Wanted:
    """Return what the options of a command ask for."""
    return Wanted(layout=layout, dtype=dtype, include=include, ids=ids_named(ids) if ids else None)


def verify(job: JobName, /, *, json: Json = False, store: StoreUrl = None) -> None:
    """Read all objects of a finished job, and list those that are missing or damaged.

    Needs only the store, no Redis. Exit code 0: all are intact; 1: some are not; 3: some are
    missing, and the job may not be finished yet.
    """
    damage: list[UserError] = []
    for found in named_fleet(store=store).jobs_named(job):
        with console.status(f"Reading the input and the shards of {found.name} …"):
            problems = found.problems()
        texts = list(map(str, problems))
        if json:
            print_line(Verification.of(found.manifest, texts).text())
        else:
            report_damage(found.manifest, texts)
        damage += problems
    if damage:
        not_ready = all(isinstance(problem, NotReadyError) for problem in damage)
        sys.exit(EXIT_NOT_READY if not_ready else EXIT_FAILED)


def write_while_it_runs(job: Job, output: Output) -> None:
    """Wait for a job, write its file meanwhile, and print what that contains."""
    with job.following(output) as file:
        watch_job(job, output, file)
        write_output(job, output, file)


def write_output(
    job: Job, output: Output, file: FollowedFile | None = None, *, store_is_kept: bool = True
) -> None:
    """Write the file of a job whose batches are all done, and print what it contains.

    Args:
        file: what was written of it while the job ran.
    """
    with console.status(f"Writing {output.place} …"):
        fetched = job.fetch_to(output) if file is None else job.finish(file, output)
    reasons = (
        f"The reasons are in {job.fleet.store.url}/{quarantine_prefix(job.name)}"
        if store_is_kept
        else "To keep the reasons of all, give --store FOLDER. The first are:"
    )
    report_fetched(fetched, reasons)
