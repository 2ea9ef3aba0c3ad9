"""The logs of long-running commands: as text with the time, or with one JSON object in each line.

As JSON, everything that the process writes to standard output and error goes through the log:
lines of libraries, warnings, tracebacks of errors that nothing caught. What is written below Python
does not: the dumps of ``faulthandler``, and the last words of a C library that ends the process.
"""

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import UserError
from common.streams import PrintableFormatter
from common.text import one_line, printable, without_login

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

TEXT_FORM = "%(asctime)s %(levelname)s %(message)s"

#: The packages whose lines a level of ``debug`` shows. Those of libraries would show the headers of
#: requests, and with them tokens of S3.
OWN_PACKAGES = ("common", "producer", "virnucpro_fleet", "workers")

#: The fields that a record may have beside its message: by ``extra``, or by ``about``.
FIELDS = ("event", "job", "batch", "rung", "worker")

log = logging.getLogger(__name__)


class LogSettings(BaseSettings):
    """The format and the level of the log. Command-line options take precedence."""

    model_config = SettingsConfigDict(env_prefix="VIRNUCPRO_", frozen=True)

    log_format: Annotated[LogFormat, BeforeValidator(str.lower)] = "text"
    log_level: Annotated[LogLevel, BeforeValidator(str.lower)] = "info"

    @classmethod
    def read(cls, log_format: LogFormat | None, log_level: LogLevel | None) -> "LogSettings":
        """Read the settings from the environment; arguments that are not None take precedence.

        Raises:
            UserError: one has another value.
        """
        given: dict[str, Any] = {"log_format": log_format, "log_level": log_level}
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors()[0]
            name = str(wrong["loc"][0])
            expected = wrong.get("ctx", {}).get("expected", "a text")
            raise UserError(
                f"--{name.replace('_', '-')} (or VIRNUCPRO_{name.upper()}): "
                f"{wrong['input']} is not {expected}."
            ) from None


_settings = LogSettings.model_construct()
_about: ContextVar[dict[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed
_identity: dict[str, Any] = {}
_handler: "LogHandler | None" = None


def start_logs(
    process: str, log_format: LogFormat | None = None, log_level: LogLevel | None = None
) -> None:
    """Log to standard error from now on, for a process that runs for long.

    Args:
        process: what this process is, such as ``keeper``, in each line of JSON.
        log_format: None: ``VIRNUCPRO_LOG_FORMAT``, or ``text``.
        log_level: of this package's lines; those of libraries never show less than ``info``. None:
            ``VIRNUCPRO_LOG_LEVEL``, or ``info``.

    Raises:
        UserError: a variable has another value.
    """
    global _handler, _settings
    _settings = LogSettings.read(log_format, log_level)
    _identity.clear()
    identify(process=process, pid=os.getpid())
    _handler = LogHandler(below(sys.stderr))
    as_json = _settings.log_format == "json"
    _handler.setFormatter(JsonFormatter() if as_json else PrintableFormatter(TEXT_FORM))
    level = logging.getLevelNamesMapping()[_settings.log_level.upper()]
    logging.basicConfig(level=max(level, logging.INFO), handlers=[_handler], force=True)
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)
    log_uncaught_errors()
    if as_json:
        sys.stdout = LoggedLines("stdout", below(sys.stdout))
        sys.stderr = LoggedLines("stderr", below(sys.stderr))


def are_json() -> bool:
    """Return whether this process logs JSON, and should write nothing else."""
    return _handler is not None and isinstance(_handler.formatter, JsonFormatter)


def as_environment() -> dict[str, str]:
    """Return the variables with which a child process logs as this one does."""
    variables: dict[str, str] = {
        "VIRNUCPRO_LOG_FORMAT": _settings.log_format,
        "VIRNUCPRO_LOG_LEVEL": _settings.log_level,
    }
    if are_json():  # its bars of progress would be lines of the log
        variables["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return variables


def identify(**fields: Any) -> None:
    """Add fields to every line of JSON of this process, such as ``worker``."""
    _identity.update(fields)


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Add fields (see ``FIELDS``) to the lines of JSON that this thread writes in the body."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def say(message: str) -> None:
    """Log a line from the handler of a signal, which may have interrupted the log itself."""
    record = log.makeRecord(log.name, logging.INFO, __file__, 0, "%s", (message.strip(),), None)
    form = PrintableFormatter(TEXT_FORM) if _handler is None else _handler.formatter
    assert form is not None
    with suppress(OSError):
        os.write(2, f"{form.format(record)}\n".encode(errors="backslashreplace"))


class LogHandler(logging.StreamHandler[Any]):
    """A handler that drops what its stream does not take: the process goes on without its log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing: what could be said of it would go to the same stream."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, even if the arguments do not fit its message."""
        try:
            record.getMessage()
        except Exception:
            record.msg, record.args = said(record), ()
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """A formatter that makes one JSON object of a record, on one line.

    As in a log of text, no control character is in a field, and no URL shows a login. Only
    ``exception`` and ``stack`` have several lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        given = vars(record)
        fields: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": one_line(without_login(said(record).strip())),
            **_identity,
            **_about.get(),
            **{name: given[name] for name in FIELDS if given.get(name) is not None},
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = printable(without_login(self.formatException(record.exc_info)))
        if record.stack_info:
            fields["stack"] = printable(without_login(record.stack_info))
        return json.dumps(fields, default=str)


def said(record: logging.LogRecord) -> str:
    """Return the message of a record: what ``extra`` names for JSON, else that of text."""
    summary = getattr(record, "summary", None)
    if summary is not None:
        return str(summary)
    try:
        return record.getMessage()
    except Exception as error:  # of a library: its arguments do not fit
        return f"{record.msg} {record.args} ({type(error).__name__})"


def rfc3339(seconds: float) -> str:
    """Return a time as ``2026-11-27T05:14:56.123Z``."""
    time = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return time.replace("+00:00", "Z")


def log_uncaught_errors() -> None:
    """Log the tracebacks that Python would print: as one record, without logins."""

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("This process ends: %s", error, exc_info=(kind, error, trace))

    def end_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is SystemExit or found.exc_value is None:
            return
        name = "" if found.thread is None else found.thread.name
        caught = found.exc_type, found.exc_value, found.exc_traceback
        log.error("The thread %r ends: %s", name, found.exc_value, exc_info=caught)

    def pass_over(found: "sys.UnraisableHookArgs") -> None:
        if found.exc_value is not None:
            caught = found.exc_type, found.exc_value, found.exc_traceback
            log.error("%s: %s", found.err_msg or "Ignored", found.exc_value, exc_info=caught)

    sys.excepthook, threading.excepthook, sys.unraisablehook = end, end_thread, pass_over


class LoggedLines(io.TextIOBase):
    """A standard stream whose lines become records of the log."""

    def __init__(self, name: str, stream: Any) -> None:
        self.stream = stream
        self._log = logging.getLogger(name)
        self._unfinished: dict[int, str] = {}  # by thread

    def write(self, text: str) -> int:
        """Log the lines that end in a text, and keep the rest for the next text."""
        thread = threading.get_ident()
        *lines, rest = re.split(r"[\r\n]+", self._unfinished.pop(thread, "") + text)
        if rest:
            self._unfinished[thread] = rest
        for line in lines:
            if line.strip():
                self._log.warning("%s", line)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Return the number of the file below, for what writes past Python."""
        return int(self.stream.fileno())


def below(stream: Any) -> Any:
    """Return the stream that ``LoggedLines`` stands for."""
    return stream.stream if isinstance(stream, LoggedLines) else stream
