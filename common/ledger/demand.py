"""The demand for workers: how many batches are left, by pool."""

import json
import time

from redis import Redis

from common.ledger.keys import job_key, store_digest
from common.ledger.scripts import Argument, load_scripts
from common.ledger.stores import KEPT_PREFIX
from common.wire.messages import Priority
from common.wire.queues import KEY_PREFIX
from common.wire.redis_client import redis_time

#: The key of the numbers, which an autoscaler may read too.
DEMAND_KEY = f"{KEY_PREFIX}demand"

#: Seconds for which the numbers are believed if no keeper renews them.
DEMAND_SECONDS = 60

#: The key of the stores that have a keeper, by the time at which it said so last.
STORES_KEY = f"{KEY_PREFIX}demand-stores"

#: Seconds for which such a store counts. A look for its jobs may take as long in one step.
STORE_SECONDS = 600


class PoolDemand:
    """The batches that are left of all open jobs, by pool.

    A pool is what one kind of worker serves: a model with the rung that its jobs begin at, whatever
    their priority. It is named as the queue of a job of normal priority.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("demand",))
        self._seen: dict[str, float] = {}  # stores with a keeper, which an emptied Redis forgets

    def note_store(self, store: str) -> None:
        """Record that a keeper keeps a store's jobs: nothing is told until they are known."""
        with self.redis.pipeline(transaction=True) as together:
            together.zadd(STORES_KEY, {store_digest(store): redis_time(self.redis).timestamp()})
            together.expire(STORES_KEY, STORE_SECONDS)
            together.execute()

    def renew(self, store: str) -> bool:
        """Count the batches that are left; the numbers stay for ``DEMAND_SECONDS``.

        All are counted at one moment, each once, and an open job as one batch at least.

        Returns:
            False if they cannot be told: Redis was emptied, and no keeper of this store, or of
            another one that has a keeper, has looked for its jobs since.
        """
        keys = [f"{KEY_PREFIX}jobs", STORES_KEY, DEMAND_KEY]
        others = [f"{priority}." for priority in Priority if priority is not Priority.NORMAL]
        now = time.monotonic()
        self._seen = {
            digest: seen for digest, seen in self._seen.items() if now - seen < STORE_SECONDS
        }
        known = json.dumps([store_digest(store), *self._seen])
        args: list[Argument] = [job_key(""), KEPT_PREFIX, DEMAND_SECONDS, STORE_SECONDS, known]
        is_known, stores = self._scripts["demand"](keys=keys, args=[*args, *others])
        self._seen |= dict.fromkeys(stores, now)
        return bool(is_known)

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
