"""A check: one thing that a fleet needs, and what was found of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from common.bounded_call import BoundedCall
from common.errors import VirnucproError
from common.text import one_line, without_login

#: Seconds that a group of checks may take.
SECONDS = 15.0

#: The advice where nothing answers.
HANGS = "what is asked hangs: see that server, driver or file system"

#: The version of the document.
VERSION = 1


class Outcome(StrEnum):
    """What was found."""

    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could
    FAILED = "failed"


#: The first letter of a line, and the word where a terminal has no such letter.
SIGNS = {Outcome.OK: ("✓", "ok"), Outcome.WARNING: ("!", "!"), Outcome.FAILED: ("✗", "FAILED")}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    outcome: Outcome
    text: str  # what was found
    advice: str = ""  # what to do; of what is not in order

    def line(self, *, plain: bool = False) -> str:
        """Return the check in one line.

        Args:
            plain: with ASCII letters alone.
        """
        sign = SIGNS[self.outcome][plain]
        found = self.text.rstrip(".")
        text = one_line(f"{sign} {self.name}: {found}{f': {self.advice}' if self.advice else ''}")
        return text.encode("ascii", "replace").decode() if plain else text

    def document(self) -> dict[str, str]:
        return {
            "name": self.name,
            "outcome": self.outcome.value,
            "text": self.text,
            "advice": self.advice,
        }


def ok(name: str, text: str) -> Check:
    return Check(name, Outcome.OK, text)


def warning(name: str, text: str, advice: str = "") -> Check:
    return Check(name, Outcome.WARNING, text, advice)


def failed(name: str, text: str, advice: str = "") -> Check:
    return Check(name, Outcome.FAILED, text, advice)


@dataclass(frozen=True)
class Group:
    """Checks that are made one after another, since the first decides whether the next can be."""

    name: str  # of what is said if it hangs or fails
    run: Callable[[], Iterator[Check]]
    seconds: float = SECONDS


def run_checks(groups: Sequence[Group]) -> list[Check]:
    """Make all checks, those of several groups at once; none keeps another from being made."""
    running = [Running(group) for group in groups]
    started = time.monotonic()
    return [check for each in running for check in each.checks(time.monotonic() - started)]


class Running:
    """A group whose checks are being made."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._found: list[Check] = []
        self._call = BoundedCall(self._run)

    def _run(self) -> None:
        for check in self._group.run():
            self._found.append(check)

    def checks(self, waited: float) -> list[Check]:
        """Return the checks of the group; of one that hangs or fails, those before, and that."""
        name, seconds = self._group.name, self._group.seconds
        try:
            self._call.result(max(0.0, seconds - waited))
        except TimeoutError:
            end = [failed(name, f"no answer within {seconds:g} s", HANGS)]
        except VirnucproError as error:
            end = [failed(name, without_login(str(error)))]
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            end = [failed(name, without_login(f"{type(error).__name__}: {reason}"))]
        else:
            end = []
        return [*self._found, *end]


def passed(checks: Sequence[Check]) -> bool:
    return all(check.outcome is not Outcome.FAILED for check in checks)


def as_document(program: str, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks as the document of ``--json``, described in ``docs/formats.md``."""
    return {
        "version": VERSION,
        "program": program,
        "passed": passed(checks),
        "checks": [check.document() for check in checks],
    }
