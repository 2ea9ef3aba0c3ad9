"""The errors of the package: each says what happened, where, and what to do.

All derive from ``VirnucproError``. The commands print the text alone and exit with code 2, or
3 if it is ``NotReadyError``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class VirnucproError(Exception):
    """The base of all errors of this package.

    Attributes:
        path: the file or object with the error, if there is one.
        line: the line in it, from 1.
        record: the FASTA record in it, from 1.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: str | Path | None = None,
        line: int | None = None,
        record: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.line = line
        self.record = record


class UserError(VirnucproError):
    """An error that the user can fix: options, files, services that do not answer."""

    @classmethod
    def of_options(cls, error: "ValidationError") -> "UserError":
        """Return pydantic's errors in options as one message."""
        return cls("; ".join(map(describe_option, error.errors())))


class UnavailableError(UserError):
    """A server that cannot be reached, or cannot serve what is asked whole, and may later."""


class InputError(UserError):
    """An input that is not FASTA, or has a record that cannot be embedded."""


class ProcessEndedError(UserError):
    """A process of a fleet of one machine ended."""


class UnknownJobError(UserError):
    """A job that this store, or this Redis, does not know."""


class JobEndedError(UserError):
    """A job that was cancelled or stopped before its end."""


class JobRunningError(UserError):
    """A job that is to be deleted, though it is neither finished nor cancelled."""


class NotReadyError(UserError):
    """A job that is not finished yet: the same will work later. Commands exit with code 3."""


class WaitTimeoutError(UserError, TimeoutError):
    """A job that did not finish within the time its caller would wait."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def describe_option(error: "ErrorDetails") -> str:
    """Return pydantic's error in an option, or in several together, as a message."""
    message = error["msg"].removeprefix("Value error, ")
    return ": ".join([*map(str, error["loc"][:1]), message])
