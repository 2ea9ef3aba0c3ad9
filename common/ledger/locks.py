"""Locks: one process stages, retries or deletes a job, and one keeper keeps a store's jobs."""

from redis import Redis

from common.ledger.keys import job_key, store_digest
from common.ledger.scripts import Argument, load_scripts
from common.wire.queues import KEY_PREFIX

#: Seconds the lock of a job's staging lasts without renewal.
STAGING_SECONDS = 60

#: Seconds for which Redis remembers who took the lock of a job's staging last.
LATEST_SECONDS = 7 * 86_400

#: Seconds the lock of a store's keeper lasts without renewal.
KEEPING_SECONDS = 15

#: Prefix of the keys of all keepers' locks.
KEEPER_PREFIX = f"{KEY_PREFIX}keeper:"

#: Prefix of the name of a standby keeper, which gives way to any other.
STANDBY_PREFIX = "watch/"


class Locks:
    """The locks of all jobs and stores."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("hold", "unlock"))

    def hold_staging(self, job: str, owner: str, *, renew: bool = False) -> bool:
        """Take or renew the lock of a job's staging; False while another owner has it.

        Args:
            renew: whether ``owner`` had it before. If it is gone (it expired, or Redis was
                emptied), it is taken again only if no other owner had it since.
        """
        args: list[Argument] = [owner, STAGING_SECONDS, "", int(renew), LATEST_SECONDS]
        keys = [staging_key(job), f"{KEY_PREFIX}staged-by:{job}"]
        return bool(self._scripts["hold"](keys=keys, args=args))

    def is_staging_held(self, job: str) -> bool:
        """Return whether anyone has the lock of a job's staging."""
        return bool(self.redis.exists(staging_key(job)))

    def release_staging(self, job: str, owner: str) -> None:
        """Free the lock of a job's staging, if ``owner`` has it."""
        self._scripts["unlock"](keys=[staging_key(job)], args=[owner])

    def hold_keeping(self, store: str, owner: str, *, standby: bool = False) -> bool:
        """Take or renew the lock of a store's keeper; False while another owner has it.

        Args:
            standby: whether this keeper gives way to any that is not on standby.
        """
        name, gives_way = (f"{STANDBY_PREFIX}{owner}", "") if standby else (owner, STANDBY_PREFIX)
        args: list[Argument] = [name, KEEPING_SECONDS, gives_way, 0]
        return bool(self._scripts["hold"](keys=[keeper_key(store)], args=args))

    def is_any_store_kept(self) -> bool:
        """Return whether any store has a keeper, be it on standby."""
        return any(True for _ in self.redis.scan_iter(f"{KEEPER_PREFIX}*", count=1000))

    def release_keeping(self, store: str, owner: str) -> None:
        """Free the lock of a store's keeper, if ``owner`` has it, on standby or not."""
        args = [owner, f"{STANDBY_PREFIX}{owner}"]
        self._scripts["unlock"](keys=[keeper_key(store)], args=args)


def staging_key(job: str) -> str:
    return f"{job_key(job)}:staging"


def keeper_key(store: str) -> str:
    return f"{KEEPER_PREFIX}{store_digest(store)}"
