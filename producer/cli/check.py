"""``producer check``."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from producer.cli.options import EXIT_USER_ERROR, Json, to_path
from producer.cli.reading import USUAL, Inputs, Reading, check_options
from producer.submission.check import check_request
from producer.terminal.console import console, print_line, say
from producer.terminal.input_check import print_check
from producer.terminal.tables import output_console


def check(
    *inputs: Inputs,
    reading: Reading = USUAL,
    bench: Annotated[Path | None, Parameter(converter=to_path)] = None,
    json: Json = False,
) -> None:
    """Read an input to its end and say what submit would make of it. Queues nothing.

    Counts records, letters and lengths, gaps, duplicates, bad records of every kind, what would be
    truncated or windowed, tokens, batches and the size of the output. Needs neither Redis nor a
    store. Exit code 0: submit would accept the input; 2: it would refuse it.

    Parameters
    ----------
    inputs
        As submit has them: files, folders, patterns in quotes, - or s3://bucket/key.
    bench
        A file with what worker bench --json printed on a machine like the workers': for the hours
        of computing.
    """
    check_options(inputs, "check")
    with reading.source(inputs) as source:
        request = reading.request(source, reading.only_model)
        with reading_display() as show:
            found = check_request(request, reading.batch_tokens, bench, show)
    if json:
        print_line(found.text())
    else:
        print_check(output_console(), found, request)
        verdict = "accept" if found.accepted else "refuse"
        say(f"producer submit would {verdict} this input. Nothing was queued.")
    if not found.accepted:
        sys.exit(EXIT_USER_ERROR)


@contextmanager
def reading_display() -> Iterator[Callable[[int], None]]:
    """Yield a function that shows how much of the input is read."""
    total = 0
    with console.status("Reading the input …") as status:

        def show(records: int) -> None:
            nonlocal total
            total += records
            status.update(f"Reading the input: {total:,} records …")

        yield show
