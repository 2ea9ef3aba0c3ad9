"""The stores whose jobs are in the ledger, since a keeper has looked for them."""

from redis import Redis

from common.ledger.keys import store_digest
from common.wire.queues import KEY_PREFIX


class Stores:
    """All known stores."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def is_new(self, store: str) -> bool:
        """Return whether no keeper has looked for a store's jobs in the life of this Redis."""
        return not self.redis.exists(f"{KEY_PREFIX}kept:{store_digest(store)}")

    def add(self, store: str) -> None:
        """Record that a store's jobs are in the ledger."""
        self.redis.set(f"{KEY_PREFIX}kept:{store_digest(store)}", store)
