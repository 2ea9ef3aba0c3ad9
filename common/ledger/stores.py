"""The stores whose jobs are in the ledger, since a keeper has looked for them."""

import uuid
from datetime import timedelta

from redis import Redis

from common.ledger.keys import store_digest
from common.ledger.scripts import load_scripts
from common.wire.queues import KEY_PREFIX

#: Prefix of the keys that say how long keepers keep closed jobs, and the seconds these last.
KEEP_PREFIX, KEEP_SECONDS = f"{KEY_PREFIX}keep:", 60

#: Prefix of the keys that say that a keeper has looked for a store's jobs.
KEPT_PREFIX = f"{KEY_PREFIX}kept:"


class Stores:
    """All known stores."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("end_look",))

    def is_new(self, store: str) -> bool:
        """Return whether no keeper has looked for a store's jobs in the life of this Redis."""
        return not self.redis.exists(kept_key(store))

    def begin_look(self, store: str) -> str:
        """Record that a look for a store's jobs begins; return its name."""
        look = uuid.uuid4().hex
        self.redis.set(look_key(store), look)
        return look

    def end_look(self, store: str, look: str) -> bool:
        """Record that a store's jobs are in the ledger.

        False, and nothing is recorded, if Redis was emptied since the look began: the jobs that it
        had found before may be unknown again.
        """
        keys = [look_key(store), kept_key(store)]
        return bool(self._scripts["end_look"](keys=keys, args=[look, store]))

    def note_keep(self, store: str, keep: timedelta) -> None:
        """Record for how long the acting keeper of a store keeps closed jobs there."""
        self.redis.set(keep_key(store), keep.total_seconds(), ex=KEEP_SECONDS)

    def keep(self, store: str) -> timedelta | None:
        """Return for how long a store's closed jobs are kept; None: not known, or for ever."""
        return as_keep(self.redis.get(keep_key(store)))

    def only_keep(self) -> timedelta | None:
        """Return the same of the only store that has a keeper who deletes; None if several have."""
        keys = list(self.redis.scan_iter(f"{KEEP_PREFIX}*", count=1000))
        return as_keep(self.redis.get(keys[0])) if len(keys) == 1 else None


def as_keep(text: object) -> timedelta | None:
    try:
        return timedelta(seconds=float(str(text)))
    except (ValueError, OverflowError):
        return None


def look_key(store: str) -> str:
    return f"{KEY_PREFIX}look:{store_digest(store)}"


def kept_key(store: str) -> str:
    return f"{KEPT_PREFIX}{store_digest(store)}"


def keep_key(store: str) -> str:
    return f"{KEEP_PREFIX}{store_digest(store)}"
