"""Commands for the embeddings of a finished job. They need only the store, no Redis."""

import sys
from typing import Annotated

from common.errors import NotReadyError
from common.job.layout import quarantine_prefix
from producer.cli.options import (
    EXIT_FAILED,
    EXIT_NOT_READY,
    Flag,
    JobName,
    Json,
    OutputPlace,
    StoreUrl,
    named_fleet,
)
from producer.fleet.job import Job
from producer.fleet.output import Output
from producer.terminal.console import console, print_line
from producer.terminal.documents import Verification
from producer.terminal.report import report_damage, report_fetched


def fetch(
    job: JobName,
    /,
    *,
    output: OutputPlace,
    overwrite: Annotated[bool, Flag] = False,
    store: StoreUrl = None,
) -> None:
    """Write a finished job's embeddings to one HDF5 file. Needs only the store, no Redis.

    Parameters
    ----------
    output
        HDF5 file, .h5 or .hdf5, or object, s3://bucket/key.h5, which is written to TMPDIR first.
        An earlier one of this job is replaced.
    overwrite
        Replace any other file too.
    """
    found = named_fleet(store=store).job(job)
    write_output(found, found.output_file(output, overwrite=overwrite))


def verify(job: JobName, /, *, json: Json = False, store: StoreUrl = None) -> None:
    """Read all objects of a finished job, and list those that are missing or damaged.

    Needs only the store, no Redis. Exit code 0: all are intact; 1: some are not; 3: some are
    missing, and the job may not be finished yet.
    """
    found = named_fleet(store=store).job(job)
    with console.status(f"Reading the input and the shards of {job} …"):
        damage = found.problems()
    texts = list(map(str, damage))
    if json:
        print_line(Verification.of(found.manifest, texts).text())
    else:
        report_damage(found.manifest, texts)
    if damage:
        not_ready = all(isinstance(problem, NotReadyError) for problem in damage)
        sys.exit(EXIT_NOT_READY if not_ready else EXIT_FAILED)


def write_output(job: Job, output: Output, *, store_is_kept: bool = True) -> None:
    """Fetch a job whose batches are all done, and print what the file contains."""
    with console.status(f"Writing {output.place} …"):
        fetched = job.fetch_to(output)
    reasons = (
        f"The reasons are in {job.fleet.store.url}/{quarantine_prefix(job.name)}"
        if store_is_kept
        else "To keep the reasons of all, give --store FOLDER. The first are:"
    )
    report_fetched(fetched, reasons)
