"""Shards that cannot be used, and must be computed again."""

from collections.abc import Iterable
from pathlib import Path

from common.advice import how_to
from common.errors import NotReadyError, UserError


class DamagedShardsError(UserError):
    """Shards that cannot be used.

    Attributes:
        keys: of the shards.
    """

    def __init__(
        self, message: str, job: str, keys: Iterable[str], *, path: str | Path | None = None
    ) -> None:
        """Make an error of a message, which what to do about it follows."""
        super().__init__(f"{message} {how_to('retry', job, damaged=True)}", path=path)
        self.keys = tuple(keys)


class RowsMissingError(DamagedShardsError, NotReadyError):
    """Shards without rows that are to be computed at a higher rung, or were lost."""
