"""What to do next about a job, as messages name it: a command, or a method in a Python program.

A command has the options that named the fleet on the command line that runs, so that it works as it
is printed.
"""

import shlex
from dataclasses import dataclass

from common.rungs import Rung
from common.wire.address import without_password

#: The commands that need no Redis (but to follow a job), and those that have no option for the
#: store.
STORE_ALONE, REDIS_ALONE = ("fetch", "verify", "quarantine"), ("status", "cancel")


@dataclass(frozen=True)
class CommandLine:
    """The options of a command line that other commands about the same job need as well."""

    store: str | None = None  # as --store names it; None: the environment does
    broker: str | None = None
    local: tuple[str, ...] = ()  # options with which this machine alone resumes the job; or none

    def command(self, verb: str, job: str, *words: str) -> str:
        """Return the command that does this to a job."""
        if self.local:  # its Redis has ended: a fleet's commands would not find the job
            return shlex.join(["producer", "resume", job, *words, *self.local])
        with_broker = verb not in STORE_ALONE or "--follow" in words
        options = self.options(store=verb not in REDIS_ALONE, broker=with_broker)
        return shlex.join(["producer", verb, job, *words, *options])

    def options(self, *, store: bool = True, broker: bool = True) -> list[str]:
        """Return the options that name the fleet, unless the environment does."""
        options = [f"--store={self.store}"] if store and self.store else []
        return [*options, f"--broker={self._broker}"] if broker and self.broker else options

    @property
    def _broker(self) -> str:
        """The URL of Redis as it was given, unless that shows a password."""
        shown = without_password(self.broker or "")
        return shown if "***" in shown else self.broker or ""


_command_line: CommandLine | None = None


def advise_commands(command_line: CommandLine) -> None:
    """Have the messages of this process name commands from now on."""
    global _command_line
    _command_line = command_line


def how_to(verb: str, job: str, *words: str, **options: str | bool) -> str:
    """Return what does this to a job: the command, or in a Python program the method.

    Args:
        words: of a command alone.
        options: of both.

    >>> how_to("resume", "in-0123", on_instability="retry")
    "job.resume(on_instability='retry')"
    >>> how_to("retry", "in-0123", damaged=True)
    'job.retry(damaged=True)'
    """
    if _command_line is None:
        arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
        method = "wait" if verb == "watch" else verb.replace("-", "_")
        return f"job.{method}({arguments})"
    given = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]
    return _command_line.command(verb, job, *words, *given)


def how_to_start_worker(model: str, rung: Rung) -> str:
    """Return the command that starts a worker for jobs that begin at a rung."""
    precision = [] if rung is Rung.FP16 else ["--precision", rung.value]
    options = [] if _command_line is None else _command_line.options()
    return shlex.join(["worker", "start", "--model", model, *precision, *options])
