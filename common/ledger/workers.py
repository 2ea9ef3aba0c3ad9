"""Worker processes as the ledger lists them."""

from pydantic import BaseModel, ConfigDict
from redis import Redis

from common.rungs import Rung
from common.wire.queues import KEY_PREFIX

#: Seconds a worker stays listed after its last announcement.
WORKER_TTL_SECONDS = 30


class WorkerInfo(BaseModel):
    """What a worker process says of itself while it lives."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    weights: str | None  # None while they are loading
    device: str
    precision: Rung
    queues: tuple[str, ...]


class WorkerRegistry:
    """The live workers of the fleet."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def announce(self, worker: WorkerInfo) -> None:
        """Say that a worker lives; repeat before ``WORKER_TTL_SECONDS`` are over."""
        key = f"{KEY_PREFIX}worker:{worker.name}"
        self.redis.set(key, worker.model_dump_json(), ex=WORKER_TTL_SECONDS)

    def leave(self, worker: WorkerInfo) -> None:
        self.redis.delete(f"{KEY_PREFIX}worker:{worker.name}")

    def all(self) -> list[WorkerInfo]:
        # Of all keys there are, a few for each job: by default Redis looks at ten in a round trip.
        keys = sorted(self.redis.scan_iter(f"{KEY_PREFIX}worker:*", count=1000))
        texts = self.redis.mget(keys) if keys else []
        return [WorkerInfo.model_validate_json(text) for text in texts if text]
