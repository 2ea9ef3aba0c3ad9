"""The queues: their names and their messages."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import cast

from kombu import Queue
from redis import Redis
from redis.exceptions import ResponseError

from common.model_source import ModelSource
from common.rungs import Rung, ladder
from common.wire.messages import Batch, Priority

#: Prefix of every key of the fleet, which may share its Redis with other programs.
KEY_PREFIX = "virnucpro:"


def queue_name(
    model: ModelSource, first: Rung, rung: Rung, priority: Priority = Priority.NORMAL
) -> str:
    """Return the queue of a model's batches at a rung of the ladder that begins at ``first``.

    For example ``esm2_t33_650M_UR50D.fp16``, or ``esm2_t33_650M_UR50D.fp16.fp32`` for retries; the
    prefix is ``high.`` or ``low.`` unless the priority is normal.
    """
    end = "" if rung is first else f".{rung}"
    return f"{priority_prefix(priority)}{model.queue}.{first}{end}"


def pool_name(model: ModelSource, first: Rung) -> str:
    """Return the pool of a model's jobs whose ladder begins at ``first``.

    It is named as their first queue at normal priority: ``esm2_t33_650M_UR50D.fp16``.
    """
    return queue_name(model, first, first)


def priority_of(queue: str) -> Priority:
    """Return the priority in a queue's name."""
    before, _, _ = queue.partition(".")
    return Priority(before) if before in (Priority.HIGH, Priority.LOW) else Priority.NORMAL


def batch_queue(batch: Batch) -> str:
    """Return the name of the queue that a batch is published to."""
    return queue_name(ModelSource.parse(batch.model), batch.first_rung, batch.rung, batch.priority)


def pool_queues(pool: str) -> list[str]:
    """Return the queues of a pool, which ``pool_name`` names.

    Raises:
        ValueError: not the name of a pool.
    """
    rungs = ladder(Rung(pool.rpartition(".")[2]))
    ends = ["", *(f".{rung}" for rung in rungs[1:])]
    return [f"{priority_prefix(priority)}{pool}{end}" for priority in Priority for end in ends]


def priority_prefix(priority: Priority) -> str:
    return "" if priority is Priority.NORMAL else f"{priority}."


def kombu_queue(name: str) -> Queue:
    """Return the declaration of a queue, the same for publishing and for consuming."""
    return Queue(name, routing_key=name)


def is_wrong_type(error: ResponseError) -> bool:
    return str(error).startswith("WRONGTYPE")


@contextmanager
def no_queue(key: str) -> Iterator[None]:
    """Name the key of Redis that a command took for a queue, if it is none."""
    try:
        yield
    except ResponseError as error:
        if not is_wrong_type(error):
            raise
        raise ResponseError(
            f"WRONGTYPE: the key {key} is named as a queue, but is none. Delete it, or, if it is "
            "of use, the job that names it."
        ) from error


#: Messages read from a queue in one round trip.
MESSAGES_PER_READ = 500


class Queues:
    """The messages of all queues."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        scripts = files("common.wire")
        self._move_to_front = redis.register_script((scripts / "move_to_front.lua").read_text())
        self._move_messages = redis.register_script((scripts / "move_messages.lua").read_text())

    def length(self, queue: str) -> int:
        """Return the number of messages waiting in a queue."""
        key = f"{KEY_PREFIX}{queue}"
        with no_queue(key):
            return int(self.redis.llen(key))

    def add_lengths(self, lengths: dict[str, int], queues: Iterable[str]) -> None:
        """Add the lengths of those queues whose length is not known yet."""
        for queue in queues:
            if queue not in lengths:
                lengths[queue] = self.length(queue)

    def messages(self, queue: str) -> Iterator[bytes]:
        """Yield a queue's messages, oldest first; some may be missed while workers take others."""
        key, end = f"{KEY_PREFIX}{queue}", -1
        while items := self._read(key, end):
            yield from reversed(items)
            end -= MESSAGES_PER_READ

    def _read(self, key: str, end: int) -> list[bytes]:
        with no_queue(key):
            return self._raw("LRANGE", key, end - MESSAGES_PER_READ + 1, end)

    def in_flight(self) -> list[bytes]:
        """Return the unacknowledged messages of all workers, in Celery's form."""
        try:
            return self._raw("HVALS", f"{KEY_PREFIX}unacked")
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            return []  # a worker deletes what has that name

    def _raw(self, *command: str | int) -> list[bytes]:
        return cast(list[bytes], self.redis.execute_command(*command, NEVER_DECODE=True))

    def move_to_front(self, queue: str, count: int) -> None:
        """Move the ``count`` messages published last to where the next ones are taken."""
        self._move_to_front(keys=[f"{KEY_PREFIX}{queue}"], args=[count])

    def move_messages(
        self, messages: Sequence[tuple[bytes, str]], *, job: str, queue: str, source: str, to: str
    ) -> int:
        """Move messages of a job to another queue; return how many were there still.

        Args:
            messages: each as it is, oldest first, and as it is to be.
            job: the key of the job's hash.
            queue: the job's queue of the first rung. If that is another by now, none is moved.
            source: the queue that they are in.
            to: the queue that they are moved to.
        """
        keys = [job, f"{KEY_PREFIX}{source}", f"{KEY_PREFIX}{to}"]
        with no_queue(keys[1]):
            args: list[str | bytes] = [queue]
            for old, new in messages:
                args += [old, new]
            return int(self._move_messages(keys=keys, args=args))
