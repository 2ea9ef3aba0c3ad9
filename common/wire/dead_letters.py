"""Dead letters: messages that no worker can process, set aside for inspection."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field
from redis import Redis
from redis.exceptions import ResponseError

from common.errors import UserError
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

    @property
    def kind(self) -> str:
        """One of a few words for the reason."""
        return next(word for word, pattern in KINDS.items() if pattern.search(self.reason))


#: The kinds of reasons, the first that matches first.
KINDS = {
    word: re.compile(pattern)
    for word, pattern in {
        "signature": r"^not signed|^its signature",
        "task": r"^not a task of this fleet",
        "batch": r"^not a batch that this version knows",
        "control": r"remote control|which workers do not obey",
        "key": r"it was deleted|wrong type",
        "unreadable": r"^not JSON|^too long|^not a string|base64",
        "other": r"",
    }.items()
}


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
        with wrong_type_named():
            # Not decoded by the client: one that is no text would end the others.
            texts: list[bytes] = self.redis.execute_command(
                "LRANGE", DEAD_LETTERS, 0, count - 1, NEVER_DECODE=True
            )
        return [read_letter(text.decode(errors="backslashreplace")) for text in texts]

    def count(self) -> int:
        with wrong_type_named():
            return int(self.redis.llen(DEAD_LETTERS))

    def clear(self) -> None:
        self.redis.delete(DEAD_LETTERS)


@contextmanager
def wrong_type_named() -> Iterator[None]:
    """Say which key it is that is no list."""
    try:
        yield
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        raise UserError(
            f"{DEAD_LETTERS} in Redis is no list of dead letters. To delete it: producer "
            "dead-letters --clear"
        ) from error


def read_letter(text: str) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(text)
    except ValueError:
        return DeadLetter(
            time=0, queue="", worker="", reason="this version cannot read this entry", message=text
        )
