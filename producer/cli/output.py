"""Commands for the embeddings of a finished job. They need only the store, no Redis."""

import sys
from typing import Annotated

from common.job.layout import quarantine_prefix
from producer.cli.options import EXIT_FAILED, Flag, OutputPath, StoreUrl, named_fleet
from producer.fleet.job import Job
from producer.fleet.output_file import OutputFile
from producer.terminal.console import console
from producer.terminal.report import report_damage, report_fetched


def fetch(
    job: str,
    /,
    *,
    output: OutputPath,
    overwrite: Annotated[bool, Flag] = False,
    store: StoreUrl = None,
) -> None:
    """Write a finished job's embeddings to one HDF5 file. Needs only the store, no Redis.

    Parameters
    ----------
    output
        HDF5 file, .h5 or .hdf5; an earlier one of this job is replaced.
    overwrite
        Replace any other file too.
    """
    found = named_fleet(store=store).job(job)
    write_output(found, found.output_file(output, overwrite=overwrite))


def verify(job: str, /, *, store: StoreUrl = None) -> None:
    """Read all objects of a finished job, and list those that are missing or damaged.

    Needs only the store, no Redis. Exit code 0: all are intact; 1: some are not.
    """
    found = named_fleet(store=store).job(job)
    with console.status(f"Reading the input and the shards of {job} …"):
        damage = found.verify()
    report_damage(found.manifest, damage)
    if damage:
        sys.exit(EXIT_FAILED)


def write_output(job: Job, output: OutputFile, *, store_is_kept: bool = True) -> None:
    """Fetch a job whose batches are all done, and print what the file contains."""
    with console.status(f"Writing {output.path} …"):
        fetched = job.fetch_to(output)
    reasons = (
        f"The reasons are in {job.fleet.store.url}/{quarantine_prefix(job.name)}"
        if store_is_kept
        else "To keep the reasons of all, give --store FOLDER. The first are:"
    )
    report_fetched(fetched, reasons)
