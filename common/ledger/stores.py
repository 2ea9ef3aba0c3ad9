"""The stores whose jobs a keeper has looked for."""

from redis import Redis

from common.ledger.keys import store_digest
from common.wire.queues import KEY_PREFIX


class Stores:
    """The known stores."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def is_new(self, store: str) -> bool:
        """Whether nobody has looked for a store's jobs since this Redis was empty."""
        return not self.redis.exists(f"{KEY_PREFIX}kept:{store_digest(store)}")

    def add(self, store: str) -> None:
        self.redis.set(f"{KEY_PREFIX}kept:{store_digest(store)}", store)
