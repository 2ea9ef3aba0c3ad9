"""Locks: who stages a job, and who keeps a store's jobs."""

from redis import Redis

from common.ledger.keys import job_key, store_digest
from common.wire.queues import KEY_PREFIX

#: Seconds the lock of a job's staging lasts without renewal.
STAGING_SECONDS = 60

#: Seconds the lock of a store's keeper lasts without renewal.
KEEPING_SECONDS = 15

#: Prefix of the name of a standby keeper, which gives way to any other.
STANDBY_PREFIX = "watch/"


class Locks:
    """The locks of all jobs and stores."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def hold_staging(self, job: str, owner: str) -> bool:
        """Be the only one who stages a job, for ``STAGING_SECONDS`` from each call."""
        return self._hold(f"{job_key(job)}:staging", owner, STAGING_SECONDS)

    def release_staging(self, job: str, owner: str) -> None:
        """Let others stage a job, if it is still ``owner`` who does."""
        self._let_go(f"{job_key(job)}:staging", owner)

    def hold_keeping(self, store: str, owner: str, *, standby: bool = False) -> bool:
        """Be the only one who keeps a store's jobs, for ``KEEPING_SECONDS`` from each call.

        Args:
            standby: whether others, who do not, may take over at once.
        """
        key = f"{KEY_PREFIX}keeper:{store_digest(store)}"
        if standby:
            return self._hold(key, f"{STANDBY_PREFIX}{owner}", KEEPING_SECONDS)
        if str(self.redis.get(key) or "").startswith(STANDBY_PREFIX):
            self.redis.set(key, owner, ex=KEEPING_SECONDS)
        return self._hold(key, owner, KEEPING_SECONDS)

    def release_keeping(self, store: str, owner: str) -> None:
        for holder in (owner, f"{STANDBY_PREFIX}{owner}"):
            self._let_go(f"{KEY_PREFIX}keeper:{store_digest(store)}", holder)

    def _hold(self, key: str, owner: str, seconds: int) -> bool:
        if self.redis.set(key, owner, nx=True, ex=seconds):
            return True
        if self.redis.get(key) != owner:
            return False
        self.redis.expire(key, seconds)
        return True

    def _let_go(self, key: str, owner: str) -> None:
        if self.redis.get(key) == owner:
            self.redis.delete(key)
