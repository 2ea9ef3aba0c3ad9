"""Paths that a person writes: options, environment variables, arguments of the Python API."""

import errno
import os
import shlex
from pathlib import Path

from common.errors import UserError

#: Error numbers of a folder that cannot be written, or has no space.
NOT_WRITABLE = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EIO),
}

#: Bytes at the beginning of a file in which a signature is looked for.
BEGINNING = 1024


def user_path(text: str | Path) -> Path:
    """Return a path with ``~`` and ``~user`` replaced by the home folder.

    A shell replaces them only at the beginning of a word: not in ``--output=~/o.h5``.

    Raises:
        UserError: there is no such user, or no home folder; or no file can have this name.
    """
    if "\0" in str(text):
        raise UserError(f"{str(text)!r} has a NUL: no file can have this name.")
    path = Path(text)
    if not str(text).startswith("~"):  # of ./~ a Path keeps only ~
        return path.absolute() if str(path).startswith("~") else path
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{text}: the home folder of {path.parts[0]!r} is not known. Write the whole path."
        ) from error


def check_has_folder(path: Path, option: str = "") -> None:
    """Check that the folder exists in which a file will be written: it is not made silently.

    Raises:
        UserError: there is no such folder, with the command that makes it.
    """
    if path.parent.is_dir():
        return
    named = f"{option} {path}".lstrip()
    found = next(folder for folder in path.absolute().parents if folder.exists())
    if not found.is_dir():
        raise UserError(f"{named} cannot be written: {found} is not a folder.", path=path)
    folder = str(path.parent)
    command = f"mkdir -p {shlex.quote(f'./{folder}' if folder.startswith('-') else folder)}"
    raise UserError(
        f"{named}: name a file in a folder that exists, or make this one: {command}", path=path
    )


def check_replaceable(path: Path, signature: bytes, option: str) -> None:
    """Check that a file to be written replaces at most an earlier one of its kind.

    Args:
        signature: what the beginning of such a file contains.

    Raises:
        UserError: there is something else.
    """
    if path.exists() and not (path.is_file() and signature in beginning(path)):
        raise UserError(
            f"{option} {path} exists, and this command did not write it: name another file, or "
            "delete it.",
            path=path,
        )


def beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BEGINNING)


def is_not_writable(error: Exception) -> bool:
    """Return whether an error says that a file or a folder cannot be written."""
    return isinstance(error, OSError) and error.errno in NOT_WRITABLE


def cache_folder() -> Path:
    """Return this program's folder in the user's cache: ``$XDG_CACHE_HOME`` or ``~/.cache``.

    A user without a home folder, as in a container, has ``/.cache``: few can write there, and what
    is kept in a cache can be done without.
    """
    # The XDG specification says to ignore a relative path.
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = os.path.expanduser("~")
    cache = Path(given) if os.path.isabs(given) else Path(home if home != "~" else "/", ".cache")
    return cache / "virnucpro-fleet"


def check_new_file(place: Path, *, overwrite: bool) -> None:
    """Check, before any work, that a file may be written.

    Raises:
        UserError: there is one, or its folder is not there.
    """
    check_has_folder(place)
    if place.is_dir():
        raise UserError(f"{place} is a folder: name a file.", path=place)
    if place.exists() and not overwrite:
        raise UserError(
            f"{place} exists: name another file, or replace it with --overwrite.", path=place
        )
