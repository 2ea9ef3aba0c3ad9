"""Entries of the ledger that this version cannot read: a newer one's, or anybody's."""

import re

from redis.exceptions import RedisError, ResponseError

from common.errors import UserError

#: What Redis answers if one key, or one value, is not of the kind that a command expects. Any other
#: error is one of Redis as a whole, such as having no memory left.
ODD_VALUE = re.compile(
    r"WRONGTYPE|not an integer|not a valid float|attempt to \w+|bad argument|Expected .* found"
    r"|must be strings or integers|out of range"
)


class UnreadableJobError(UserError):
    """A job whose entries in Redis this version cannot read."""


def is_odd_value(error: RedisError) -> bool:
    """Return whether an error is about one key or value rather than Redis as a whole."""
    return isinstance(error, ResponseError) and ODD_VALUE.search(str(error)) is not None


def unreadable(job: str, error: Exception) -> UnreadableJobError:
    """Return the error of a job that cannot be read, for this reason."""
    reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else error
    return UnreadableJobError(
        f"Job {job} cannot be read by this version of the program ({reason}): update it."
    )
