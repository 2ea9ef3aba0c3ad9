"""Dead letters: messages that no worker can process, set aside for inspection."""

import time
from typing import cast

from pydantic import Field
from redis import Redis

from common.wire.messages import Document
from common.wire.queues import KEY_PREFIX
from common.wire.redis_client import append_capped


class DeadLetter(Document):
    """One message that was set aside, and the reason."""

    time: float = Field(default_factory=time.time)
    queue: str
    worker: str
    reason: str
    message: str  # its first bytes, as text


DEAD_LETTERS = f"{KEY_PREFIX}dead"

#: Dead letters kept; older ones are in the logs alone.
LETTERS_KEPT = 1000


class DeadLetters:
    """The dead letters of the fleet."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def add(self, letter: DeadLetter) -> None:
        """Add a dead letter."""
        append_capped(self.redis, DEAD_LETTERS, letter, LETTERS_KEPT)

    def latest(self, count: int = LETTERS_KEPT) -> list[DeadLetter]:
        """Return the latest dead letters, newest first; of one of a newer version, its text."""
        texts = cast(list[str], self.redis.lrange(DEAD_LETTERS, 0, count - 1))
        return [read_letter(text) for text in texts]

    def count(self) -> int:
        return int(self.redis.llen(DEAD_LETTERS))

    def clear(self) -> None:
        self.redis.delete(DEAD_LETTERS)


def read_letter(text: str) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(text)
    except ValueError:
        return DeadLetter(
            time=0, queue="", worker="", reason="this version cannot read this entry", message=text
        )
