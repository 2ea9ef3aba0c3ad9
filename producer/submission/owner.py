"""The owner of a job: who submitted it, as ``producer status`` shows."""

import getpass
import os
import socket

from common.errors import UserError
from common.settings import Settings

#: Most characters of an owner.
LONGEST = 200


def owner_named(given: str | None) -> str:
    """Return the owner of a job: the one given, VIRNUCPRO_OWNER, or user and host.

    Raises:
        UserError: it is no text of one line, or too long.
    """
    owner = given or Settings.read().owner or f"{user()}@{socket.gethostname()}"
    if not owner.isprintable() or len(owner) > LONGEST:
        raise UserError(
            f"owner (or VIRNUCPRO_OWNER): give one line of at most {LONGEST} printable characters."
        )
    return owner


def user() -> str:
    """Return the user's name; the number of one who has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
