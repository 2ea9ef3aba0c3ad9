"""The lock of a job, for those who write or delete objects that others may write too."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.errors import UserError
from common.ledger.ledger import Ledger


class JobLockedError(UserError):
    """Another process has the lock of the job, or had it meanwhile."""


@contextmanager
def job_lock(ledger: Ledger, job: str) -> Iterator[Callable[[], None]]:
    """Hold a job's lock; yield the function that renews it.

    That is called right before each step that must not be taken late: a process may stop anywhere
    (Ctrl-Z, SIGSTOP, a laptop's lid) and go on an hour later.

    Raises:
        JobLockedError: another process has the lock, or had it since the last renewal.
    """
    owner = uuid.uuid4().hex

    def hold(*, renew: bool = True) -> None:
        if not ledger.locks.hold_staging(job, owner, renew=renew):
            raise JobLockedError(
                f"Job {job} is being submitted by another producer, retried or deleted at this "
                "moment. Run the command again in a minute: if the other has ended by then, this "
                "one goes on."
            )

    hold(renew=False)
    try:
        yield hold
    finally:
        ledger.locks.release_staging(job, owner)
