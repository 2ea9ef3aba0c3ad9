"""The standard streams of a command: closed, full or broken ones, and what is logged to them."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import UserError
from common.text import one_line, printable, without_login


def open_closed_streams() -> None:
    """Open those of the standard streams that are closed, on the null device.

    Otherwise the next file that is opened takes the number of the closed stream, and what is
    printed goes into that file. ``sys.stdin`` stays None if it was closed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


@contextmanager
def flushed_output() -> Iterator[None]:
    """Flush standard output at the end of a command.

    Raises:
        BrokenPipeError: the program that reads standard output has ended (``| head``).
        UserError: standard output cannot be written; or another file, which has no better error.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        drop_unwritten()
        if isinstance(error, BrokenPipeError):
            raise
        what = error.filename or "The output cannot be written"
        raise UserError(f"{what}: {error.strerror or error}.") from error


def drop_unwritten() -> None:
    """Drop what standard output does not take, so that Python's end is silent about it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def can_print(text: str) -> bool:
    """Return whether standard output can encode a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def log_to_stderr(level: int, form: str) -> None:
    """Log to standard error, with control characters made visible."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)


class PrintableFormatter(logging.Formatter):
    """A formatter for records with texts from files, messages and servers.

    A record is one line, but for a traceback, whose lines are indented: no text from outside can
    look like another record. Nothing in it is obeyed by a terminal, and no URL shows a login.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        text = without_login(printable(super().format(record)))
        return text.replace("\n", "\n  ")
