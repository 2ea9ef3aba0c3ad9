"""The live workers of the fleet."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from redis import Redis

from common.ledger.scripts import load_scripts
from common.rungs import Rung
from common.wire.queues import KEY_PREFIX

#: Seconds a worker stays listed after its last announcement.
WORKER_TTL_SECONDS = 30

#: The beginning of the keys of all workers.
WORKER_PREFIX = f"{KEY_PREFIX}worker:"


class WorkerInfo(BaseModel):
    """The entry of a live worker process."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    weights: str | None  # None while they are loading
    model_digest: str | None = None  # of the files that they were loaded from, of a path
    device: str
    precision: Rung
    queues: tuple[str, ...]
    takes: bool = True  # batches from its queues; false if its consumer hangs
    keys: tuple[str, ...] = ()  # names of those whose signatures it accepts; empty: accepts all

    def accepts(self, signed_with: str) -> bool:
        """Return whether this worker accepts messages that are signed with a key, or with none."""
        return not self.keys or signed_with in self.keys

    def fits(self, weights: str | None, model_digest: str | None) -> bool:
        """Return whether a job of these weights can be computed, None being any."""
        return weights in (None, self.weights) and (
            None in (model_digest, self.model_digest) or model_digest == self.model_digest
        )


class WorkerRegistry:
    """The entries of all live workers."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("workers",))

    def announce(self, worker: WorkerInfo) -> None:
        """List a worker for ``WORKER_TTL_SECONDS``, or renew its entry."""
        key = f"{WORKER_PREFIX}{worker.name}"
        self.redis.set(key, worker.model_dump_json(), ex=WORKER_TTL_SECONDS)

    def leave(self, worker: WorkerInfo) -> None:
        """Remove a worker that ends."""
        self.redis.delete(f"{WORKER_PREFIX}{worker.name}")

    def all(self) -> list[WorkerInfo]:
        """Return all live workers that this version can read, by name."""
        return [worker for worker in self.entries().values() if worker is not None]

    def entries(self) -> dict[str, WorkerInfo | None]:
        """Return all live workers by name; None for one that this version cannot read."""
        # The scan passes all keys of all jobs; Redis's default is 10 keys in a round trip.
        found = self.redis.scan_iter(f"{WORKER_PREFIX}*", count=1000, NEVER_DECODE=True)
        keys: list[bytes] = sorted(found)
        return {
            key.decode(errors="backslashreplace").removeprefix(WORKER_PREFIX): read_worker(text)
            for key, text in zip(keys, self._texts(keys), strict=True)
            if text
        }

    def _texts(self, keys: Sequence[bytes]) -> list[str | None]:
        """Return the texts of entries; of one that is no text, something that is no entry."""
        try:
            args = [WORKER_TTL_SECONDS]
            return self._scripts["workers"](keys=keys, args=args) if keys else []
        except UnicodeDecodeError:  # in one of them
            if len(keys) == 1:
                return ["no text"]
            middle = len(keys) // 2
            return [*self._texts(keys[:middle]), *self._texts(keys[middle:])]


def read_worker(text: str) -> WorkerInfo | None:
    try:
        return WorkerInfo.model_validate_json(text)
    except ValueError:
        return None
