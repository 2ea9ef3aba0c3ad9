"""The demand for workers: how many batches are left, by pool."""

from redis import Redis

from common.ledger.keys import job_key
from common.ledger.scripts import Argument, load_scripts
from common.ledger.stores import kept_key
from common.wire.messages import Priority
from common.wire.queues import KEY_PREFIX

#: The key of the numbers, which an autoscaler may read too.
DEMAND_KEY = f"{KEY_PREFIX}demand"

#: Seconds for which the numbers are believed if no keeper renews them.
DEMAND_SECONDS = 60


class PoolDemand:
    """The batches that are left of all open jobs, by pool.

    A pool is what one kind of worker serves: a model with the rung that its jobs begin at, whatever
    their priority. It is named as the queue of a job of normal priority.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("demand",))

    def renew(self, store: str) -> bool:
        """Count the batches that are left; the numbers stay for ``DEMAND_SECONDS``.

        All are counted at one moment, each once, and an open job as one batch at least.

        Returns:
            False if they cannot be told: Redis was emptied, and no keeper of the store has looked
            for its jobs since.
        """
        keys = [f"{KEY_PREFIX}jobs", kept_key(store), DEMAND_KEY]
        others = [f"{priority}." for priority in Priority if priority is not Priority.NORMAL]
        args: list[Argument] = [job_key(""), DEMAND_SECONDS, *others]
        return bool(self._scripts["demand"](keys=keys, args=args))

    def read(self) -> dict[str, int] | None:
        """Return the batches that are left of each pool that has any; None if nobody knows."""
        with self.redis.pipeline(transaction=False) as together:
            # Not decoded by the client: one name that is no text would hide the others.
            together.execute_command("HGETALL", DEMAND_KEY, NEVER_DECODE=True)
            together.pttl(DEMAND_KEY)
            found, milliseconds = together.execute()
        # Longer than it was given: Redis's clock was set back since.
        if not found or not 0 <= milliseconds <= 1000 * DEMAND_SECONDS:
            return None
        pools = {pool.decode(errors="backslashreplace"): int(n) for pool, n in found.items()}
        return {pool: batches for pool, batches in sorted(pools.items()) if pool}
