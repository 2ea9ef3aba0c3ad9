"""Paths that a person writes: options, environment variables, arguments of the Python API."""

from pathlib import Path

from common.errors import UserError


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` and ``~user`` replaced by the home folder.

    A shell replaces them only at the beginning of a word: not in ``--output=~/o.h5``.

    Raises:
        UserError: there is no such user, or no home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{text}: the home folder of {Path(text).parts[0]!r} is not known. Write the whole "
            "path."
        ) from error
