"""The keys of a staging's objects, which are its own alone."""

import uuid
from collections.abc import Callable
from contextlib import suppress

from common.job.layout import copies_prefix, input_prefix, reused_prefix
from common.job.manifest import find_job
from common.store import ObjectExistsError, ObjectNotFoundError, Store
from producer.scheduling.job_lock import JobLockedError

#: The prefixes of a staging's objects. The claim is under the last one.
PREFIXES = (reused_prefix, copies_prefix, input_prefix)


class InputKeys:
    """The keys that one staging writes a job's objects under.

    If nothing is left of another staging, they have no name of a staging, so that processes of
    earlier versions find them. A producer that slept may come to the same: then the claim, an
    object beside them, is one's or the other's.

    Args:
        hold: renews the job's lock; raises if another producer had it meanwhile.
    """

    def __init__(self, store: Store, job: str, hold: Callable[[], None]) -> None:
        self.store = store
        self.job = job
        self.hold = hold
        self.dead = [key for part in PREFIXES for key in store.keys(part(job))]
        self._token = uuid.uuid4().hex
        #: The name of the staging in its keys; empty: they have none.
        self.staging = "" if not self.dead and self.claim() else self._token

    @property
    def _claim_key(self) -> str:
        return f"{input_prefix(self.job)}claim"

    def claim(self) -> bool:
        """Return whether this staging alone has the keys without a name of a staging."""
        try:
            with self.store.create(self._claim_key, replace=False) as path:
                path.write_text(self._token)
        except ObjectExistsError:
            return False
        return True

    def check(self) -> None:
        """Check that the job has no manifest yet, and that the keys still are this staging's.

        Raises:
            ObjectExistsError: it has one.
            JobLockedError: another producer staged the job meanwhile, or it was deleted.
        """
        if find_job(self.store, self.job) is not None:
            raise ObjectExistsError(f"Store {self.store.url} has job {self.job} already.")
        if not self.staging:
            self._check_claim()

    def check_held(self) -> None:
        """Renew the lock, and check the same."""
        self.hold()
        self.check()

    def _check_claim(self) -> None:
        with suppress(ObjectNotFoundError):
            if self.store.get(self._claim_key) == self._token.encode():
                return
        raise JobLockedError(
            f"Job {self.job} was submitted by another producer, or deleted, while this one stood "
            "still. Run the command again."
        )

    def delete_objects(self) -> None:
        """Delete what this staging wrote."""
        for prefix in PREFIXES:
            if self.staging:
                self.store.delete(prefix(self.job, self.staging))
            else:  # another that had the lock since may have the same keys: then they stay
                self.store.delete(prefix(self.job), self.check_held)

    def give_up(self) -> None:
        """Delete the same, and the claim, once another staging has the job."""
        with suppress(ObjectExistsError, JobLockedError):
            self.delete_objects()
        if not self.staging:
            self.store.delete(self._claim_key)

    def delete_dead(self) -> None:
        """Delete the claim, and what earlier stagings left, once this one has the job."""
        self.store.delete_keys([self._claim_key, *self.dead], self.hold)
