"""The live workers of the fleet."""

from collections.abc import Collection, Iterable, Sequence
from typing import cast

from pydantic import BaseModel, ConfigDict
from redis import Redis

from common.ledger.scripts import load_scripts
from common.rungs import Rung
from common.wire.queues import KEY_PREFIX

#: Seconds a worker stays listed after its last announcement.
WORKER_TTL_SECONDS = 30

#: The beginning of the keys of all workers.
WORKER_PREFIX = f"{KEY_PREFIX}worker:"


class CurrentBatch(BaseModel):
    """A batch that a worker is computing, and how far it has come."""

    model_config = ConfigDict(frozen=True)

    job: str
    batch: int
    rung: Rung
    tokens: int  # done, as the job counts them; those of rows that are not finite included
    seconds: float  # since it was claimed


class WorkerInfo(BaseModel):
    """The entry of a live worker process.

    A worker of an earlier version tells nothing of the fields from ``host`` on.
    """

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
    host: str | None = None
    pid: int | None = None
    started: float | None = None  # in Redis's time
    stage: str | None = None  # of loading the model; None once it is loaded
    attention: str | None = None  # the kernel that computes it
    tokens_per_second: float | None = None  # of the last minute
    busy: float | None = None  # share of the last minute in which the device computed
    memory_used: int | None = None  # bytes of the device, by all programs; None for a CPU
    memory_total: int | None = None
    staging: bool = False  # computes batches of jobs that are being staged
    current: tuple[CurrentBatch, ...] = ()  # in the order of their claims

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

    def names(self) -> list[str]:
        """Return the names of all live workers, also of those that this version cannot read."""
        return list(map(name_of, self._keys()))

    def entries(self) -> dict[str, WorkerInfo | None]:
        """Return all live workers by name; None for one that this version cannot read."""
        keys = self._keys()
        return {
            name_of(key): read_worker(text)
            for key, text in zip(keys, self._texts(keys), strict=True)
            if text
        }

    def _keys(self) -> list[bytes]:
        # The scan passes all keys of all jobs; Redis's default is 10 keys in a round trip.
        return sorted(self.redis.scan_iter(f"{WORKER_PREFIX}*", count=1000, NEVER_DECODE=True))

    def silence(self, names: Iterable[str]) -> dict[str, float]:
        """Return the seconds since the last announcement of workers that are listed."""
        asked = list(names)
        with self.redis.pipeline(transaction=False) as together:
            for name in asked:
                together.pttl(f"{WORKER_PREFIX}{name}")
            left = cast(list[int], together.execute())
        return {
            name: WORKER_TTL_SECONDS - milliseconds / 1000
            for name, milliseconds in zip(asked, left, strict=True)
            if milliseconds >= 0
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


def name_of(key: bytes) -> str:
    """Return the name of the worker that has an entry under this key."""
    return key.decode(errors="backslashreplace").removeprefix(WORKER_PREFIX)


def read_worker(text: str) -> WorkerInfo | None:
    try:
        return WorkerInfo.model_validate_json(text)
    except ValueError:
        return None


def running_tokens(
    workers: Iterable[WorkerInfo], job: str, leased: Collection[tuple[int, Rung]]
) -> int:
    """Return the tokens that are done of a job's running batches.

    Args:
        leased: the batches that are running, with their rungs. What a worker last told of others
            is old.
    """
    done: dict[tuple[int, Rung], int] = {}
    for current in (current for worker in workers for current in worker.current):
        key = current.batch, current.rung
        if current.job == job and key in leased:
            done[key] = max(current.tokens, done.get(key, 0))  # its last worker may be listed too
    return sum(done.values())
