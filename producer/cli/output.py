"""Commands for the embeddings of a finished job. They need only the store, no Redis."""

import sys
from typing import Annotated

from producer.cli.options import EXIT_FAILED, Flag, OutputPath, StoreUrl
from producer.fleet.fleet import Fleet
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
    found = Fleet(store=store).job(job)
    with console.status(f"Writing {output} …"):
        fetched = found.fetch(output, overwrite=overwrite)
    report_fetched(fetched, found.fleet.store, found.manifest)


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
