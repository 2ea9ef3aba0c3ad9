"""Where text goes: messages for people to standard error, results to standard output."""

import sys

from rich.console import Console

console = Console(stderr=True)
# A file or a pipe gets lines as they are; a terminal, words that stay whole.
console.soft_wrap = not console.is_terminal


def say(text: str) -> None:
    """A message for a person, as it is: no colours, no markup."""
    console.print(text, highlight=False, markup=False)


def print_line(text: str) -> None:
    """One line that a script may read: a job's name."""
    sys.stdout.write(f"{text}\n")


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 record``, ``2,000 records``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
