"""Revisions of a repository on the Hugging Face hub: branches, tags and commits."""

import hashlib
import re

from common.errors import UserError

#: Characters in the longest revision that is taken.
LONGEST = 100

#: The form of a revision: a part of git's names of branches and tags, which has all in use.
REVISION = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._/+-]{{0,{LONGEST - 1}}}")

#: A commit, whose files never change.
COMMIT = re.compile("[0-9a-f]{40}")

#: Characters of a revision that its part of a queue's name shows.
SHOWN = 20


def check_revision(revision: str) -> str:
    """Return a revision.

    Raises:
        UserError: no branch, tag or commit has this name.
    """
    wrong = ("..", "//", "/.")
    if (
        not REVISION.fullmatch(revision)
        or any(part in revision for part in wrong)
        or revision.endswith(("/", ".", ".lock"))
    ):
        raise UserError(
            f"Revision {revision[:LONGEST]!r}: not the name of a branch or a tag, or a commit, on "
            f"the Hugging Face hub: up to {LONGEST} letters, digits and . _ / + -, such as main, "
            "v1.0 or a commit's 40 hexadecimal digits."
        )
    return revision


def is_commit(revision: str) -> bool:
    """Return whether a revision is a whole commit: the same files for ever."""
    return COMMIT.fullmatch(revision) is not None


def queue_part(revision: str) -> str:
    """Return a revision as a part of a queue's name, different for each revision.

    >>> queue_part("v1.0")
    'v1-0-fa8b919c'
    """
    shown = re.sub("[^A-Za-z0-9_-]", "-", revision[:SHOWN])
    return f"{shown}-{hashlib.sha256(revision.encode()).hexdigest()[:8]}"
