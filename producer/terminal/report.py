"""The end of a job: its file written, or what failed."""

import sys
import uuid
from pathlib import Path

from common.errors import UserError
from common.job.layout import quarantine_prefix
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.store import Store
from common.wire.messages import Status
from producer.output.fetch import fetch
from producer.output.verify import verify
from producer.terminal.console import console, counted, say
from producer.terminal.tables import first_lines, problems

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def check_output(output: Path) -> None:
    """Refuse an output file that could not be written, before any work is done for it.

    Raises:
        UserError: it is a folder, or its folder cannot be written.
    """
    try:
        if output.is_dir():
            raise UserError(f"{output} is a folder: name a file, such as {output / 'out.h5'}.")
        if output.exists() and not output.is_file():
            raise UserError(f"{output} is no regular file: an HDF5 file cannot be written there.")
        output.parent.mkdir(parents=True, exist_ok=True)
        probe = output.with_name(f".{output.name}.{uuid.uuid4().hex}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error}.") from error


def report_failures(ledger: Ledger, manifest: Manifest) -> None:
    """Say which batches of a finished job failed; exit with code 1 if any did."""
    results = ledger.results.all(manifest.job)
    failed = [result for result in results if result.status is Status.FAILED]
    for line in problems(failed):
        say(line)
    if failed:
        say(
            f"{len(failed)} of {manifest.batches} batches failed. To try them again: producer "
            f"retry {manifest.job}"
        )
        sys.exit(EXIT_FAILED)


def report_quarantined(ledger: Ledger, manifest: Manifest) -> None:
    """Say which rows no rung could embed, as the ledger knows them."""
    results = [result for result in ledger.results.all(manifest.job) if result.quarantined]
    for line in problems(results):
        say(line)


def write_output(store: Store, manifest: Manifest, output: Path) -> None:
    """Fetch a job whose batches are all done, and say what the file holds."""
    with console.status(f"Writing {output} …"):
        fetched = fetch(store, manifest, output)
    say(f"Wrote {counted(fetched.rows, 'embedding')} to {output}.")
    if len(fetched.precisions) > 1:
        parts = (f"{count:,} in {name}" for name, count in fetched.precisions.items())
        say(f"Computed {', '.join(parts)}: see the dataset precision.")
    if fetched.quarantined:
        say(
            f"Without numbers (NaN, precision none): {counted(len(fetched.quarantined), 'row')} "
            "whose forward pass was not finite at any rung, or was given up. Why is in "
            f"{store.url}/{quarantine_prefix(manifest.job)}"
        )
        for line in first_lines(fetched.quarantined):
            say(f"  {line}")
    if fetched.warning:
        say(f"Mind: {fetched.warning}.")


def report_damage(store: Store, manifest: Manifest) -> None:
    """Read a job's shards and say what is wrong with them; exit with code 1 if anything is."""
    with console.status(f"Reading the shards of {manifest.job} …"):
        problems_found = verify(store, manifest)
    for problem in problems_found:
        say(problem)
    whole = manifest.batches - len(problems_found)
    say(f"{whole:,} of {manifest.batches:,} batches are there and as they were written.")
    if problems_found:
        sys.exit(EXIT_FAILED)
