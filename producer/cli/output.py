"""Commands for the embeddings of a finished job. They need only the store, no Redis."""

import sys
import uuid
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from common.errors import UserError
from producer.cli.options import EXIT_FAILED, StoreUrl
from producer.fleet.fleet import Fleet
from producer.fleet.job import Job
from producer.terminal.console import console
from producer.terminal.report import report_damage, report_fetched


def fetch(
    job: str,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    store: StoreUrl = None,
) -> None:
    """Write a finished job's embeddings to one HDF5 file. Needs only the store, no Redis.

    Parameters
    ----------
    output
        HDF5 file; an existing one is replaced.
    """
    check_output(output)
    write_output(Fleet(store=store).job(job), output)


def verify(job: str, /, *, store: StoreUrl = None) -> None:
    """Read all shards of a finished job, and list those that are missing or damaged.

    Needs only the store, no Redis. Exit code 0: all shards are intact; 1: some are not.
    """
    found = Fleet(store=store).job(job)
    with console.status(f"Reading the shards of {job} …"):
        damage = found.verify()
    report_damage(found.manifest, damage)
    if damage:
        sys.exit(EXIT_FAILED)


def write_output(job: Job, output: Path) -> None:
    """Fetch a job whose batches are all done, and print what the file contains."""
    with console.status(f"Writing {output} …"):
        fetched = job.fetch(output)
    report_fetched(fetched, job.fleet.store, job.manifest)


def check_output(output: Path) -> None:
    """Check that an output file can be written, before any work is done for it.

    Raises:
        UserError: the path is a folder, or its folder cannot be written.
    """
    try:
        if output.is_dir():
            raise UserError(
                f"{output} is a folder: name a file, such as {output / 'out.h5'}.", path=output
            )
        if output.exists() and not output.is_file():
            raise UserError(
                f"{output} is not a regular file: an HDF5 file cannot be written there.",
                path=output,
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        probe = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}.", path=output) from error
