"""Printing: messages go to standard error, results to standard output."""

import sys

from rich.console import Console

from common.text import one_line, printable

console = Console(stderr=True, markup=False, emoji=False, highlight=False)
# A file or a pipe gets lines of any length; on a terminal, lines break between words.
console.soft_wrap = not console.is_terminal


def say(text: str) -> None:
    """Print a message, without colours or markup."""
    console.print(printable(text))


def warn(text: str) -> None:
    """Print a warning."""
    console.print(f"Warning: {printable(text)}", style="bold red")


def print_line(text: str) -> None:
    """Print one line that a script may read, such as a job's name."""
    sys.stdout.write(f"{one_line(text)}\n")


def confirmed(question: str) -> bool:
    """Ask a question on the terminal; return whether the answer is yes."""
    console.print(f"{printable(question)} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")
