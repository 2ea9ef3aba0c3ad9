"""Results: counted once, and taken back to be tried again."""

from collections.abc import Iterable
from typing import Any, cast

from redis import Redis

from common.ledger.keys import batch_field, done_key, job_key
from common.ledger.scripts import Argument, load_scripts
from common.rungs import Rung
from common.wire.messages import BatchResult


class Results:
    """The results of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("complete", "reopen"))

    def all(self, job: str) -> list[BatchResult]:
        """Results that were not ok, by batch."""
        texts = self.redis.hvals(f"{job_key(job)}:results")
        found = [BatchResult.model_validate_json(text) for text in texts]
        return sorted(found, key=lambda result: (result.index, result.rung))

    def get(self, job: str, index: int, rung: Rung) -> BatchResult | None:
        """A batch's result at a rung, if it was not ok and is still of interest."""
        key, field = f"{job_key(job)}:results", batch_field(index, rung)
        text = cast(str | None, self.redis.hget(key, field))
        return None if text is None else BatchResult.model_validate_json(text)

    def complete(self, result: BatchResult, *, owner: str | None = None) -> bool:
        """Count a result; True for the first report of this batch at this rung.

        A failure counts only if ``owner`` still holds the batch: who took it over may succeed.
        """
        return bool(self._scripts["complete"](**counting(result, owner)))

    def complete_all(self, results: Iterable[BatchResult]) -> None:
        """Count results in one round trip."""
        with self.redis.pipeline(transaction=False) as together:
            for result in results:
                self._scripts["complete"](**counting(result, None), client=together)
            together.execute()

    def reopen(self, result: BatchResult) -> bool:
        """Take a result back, so that its batch can be tried again; of one that went through
        several rungs, the last one's first.
        """
        return bool(self._scripts["reopen"](**counting(result, None)))


def counting(result: BatchResult, owner: str | None) -> dict[str, Any]:
    """Keys and arguments of the scripts that count a result, or take it back."""
    key, field = job_key(result.job), batch_field(result.index, result.rung)
    keys = [key, done_key(result), f"{key}:leases", f"{key}:owners", f"{key}:results"]
    keys += [f"{key}:{part}" for part in ("attempts", "deaths", "trails", "begun")]
    poison = result.model_copy(update={"unstable": (), "next": None, "records": 0})
    args: list[Argument] = [
        result.index,
        field,
        result.status,
        result.precision or "none",
        result.records,
        len(result.unstable),
        result.tokens,
        round(1000 * result.seconds),
        result.model_copy(update={"poisoned": ()}).model_dump_json(),
        owner or "",
        result.rung,
        "" if result.previous_rung is None else batch_field(result.index, result.previous_rung),
        result.next or "",
        int(result.stops_job),
        len(result.poisoned),
        poison.model_dump_json() if result.poisoned else "",
        "" if result.created is None else result.created,
    ]
    return {"keys": keys, "args": args}
