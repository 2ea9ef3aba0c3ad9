"""Handling each job by itself, so that a strange one does not concern the others."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from common.errors import UserError
from common.ledger.unreadable import is_odd_value
from common.store import ObjectNotFoundError, StoreError

log = logging.getLogger(__name__)


class OneByOne:
    """A guard around what is done for one job.

    An error of that job is logged once, and the job left alone; one of the store or of Redis as a
    whole is raised.
    """

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()
        self.unexpected = 0  # errors so far of the program itself

    @contextmanager
    def __call__(self, job: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not concerns_one_job(error):
                raise
            is_unexpected = not isinstance(error, UserError | RedisError)
            self.unexpected += is_unexpected
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            if (job, reason := f"{kind}{error}") not in self._logged:
                self._logged.add((job, reason))
                log.error("Job %s is skipped: %s", job, reason, exc_info=is_unexpected)


def concerns_one_job(error: Exception) -> bool:
    """Return whether an error is about one job; otherwise the store, or Redis, is unusable."""
    if isinstance(error, RedisError):
        return is_odd_value(error)
    return not isinstance(error, StoreError) or isinstance(error, ObjectNotFoundError)
