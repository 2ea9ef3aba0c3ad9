"""Keys of Celery's in Redis that have another type than Celery expects.

It would meet them again and again: it neither takes batches nor ends. So such a key is deleted, and
counted as a dead letter.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

from common.wire.queues import KEY_PREFIX

#: The types of Celery's keys but its queues, which are lists, and its bindings, which are sets.
TYPES = {
    "unacked": "hash",
    "unacked_index": "zset",
    "unacked_mutex": "string",
    "_kombu.binding_deadlines": "zset",
}
BINDINGS = "_kombu.binding"

#: Deletes the keys that have other types than these; returns the name and the type of each.
DELETE_WRONG = """
local deleted = {}
for number, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= ARGV[number] then
    redis.call('DEL', key)
    table.insert(deleted, key)
    table.insert(deleted, found)
  end
end
return deleted
"""

#: Called with a key that was deleted, its type, and the expected one.
OnDeleted = Callable[[str, str, str], None]

T = TypeVar("T")


def expected_type(key: str) -> str:
    """Return the type of a key, given without prefix."""
    return TYPES.get(key) or ("set" if key.startswith(BINDINGS) else "list")


class CuringPipeline(kombu_redis.PrefixedRedisPipeline):
    """Sends its commands again after a key of the wrong type was deleted."""

    curing_client: "CuringClient"

    def execute(self, raise_on_error: bool = True) -> Any:
        commands = list(self.command_stack)

        def send() -> Any:
            self.command_stack = list(commands)
            return super(CuringPipeline, self).execute(raise_on_error)

        words = [word for command in commands for word in command[0]]
        return self.curing_client.cured(words, send)


class CuringClient(kombu_redis.PrefixedStrictRedis):
    """Sends a command again after a key of the wrong type was deleted."""

    on_deleted: OnDeleted

    def execute_command(self, *words: Any, **options: Any) -> Any:
        send = super().execute_command
        return self.cured(self._prefix_args(words), lambda: send(*words, **options))  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> CuringPipeline:
        pipeline = CuringPipeline(  # type: ignore[no-untyped-call]
            self.connection_pool,
            self.response_callbacks,
            transaction,
            shard_hint,
            global_keyprefix=self.global_keyprefix,
        )
        pipeline.curing_client = self
        return pipeline

    def cured(self, words: Iterable[object], send: Callable[[], T]) -> T:
        """Return the answer to a command of these words; send it again after a cure."""
        try:
            return send()
        except ResponseError as error:
            if not self.cure(error, words):
                raise
        return send()

    def cure(self, error: ResponseError, words: Iterable[object]) -> bool:
        """Delete the keys of wrong types among the words of a command; whether there were any."""
        if "WRONGTYPE" not in str(error):
            return False
        names = {str(word) for word in words if str(word).startswith(KEY_PREFIX)}
        expected = {name: expected_type(name.removeprefix(KEY_PREFIX)) for name in names}
        with kombu_redis.redis.Redis(connection_pool=self.connection_pool) as plain:
            flat = plain.eval(DELETE_WRONG, len(expected), *expected, *expected.values())
        for key, found in zip(flat[::2], flat[1::2], strict=True):
            name = key.decode()
            self.on_deleted(name, found.decode(), expected[name])
        return bool(flat)
