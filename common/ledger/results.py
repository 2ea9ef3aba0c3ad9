"""Results: counted once, and taken back so that a batch can be tried again."""

from collections.abc import Iterable
from typing import Any, cast

from redis import Redis

from common.errors import UserError
from common.ledger.keys import batch_field, done_key, job_key
from common.ledger.scripts import load_scripts
from common.rungs import Rung
from common.wire.messages import BatchResult

#: Number of characters of an unreadable result that its error shows.
TEXT_SHOWN = 100

#: Suffix of the field under which a result is stored for its rows that crash their worker.
POISON_SUFFIX = ".poison"


class Results:
    """The results of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("complete", "reopen"))

    def all(self, job: str) -> list[BatchResult]:
        """Return the results that were not ok, by batch and rung.

        A batch of which some rows are retried and others given up has two: one for each.
        """
        texts = cast(dict[str, str], self.redis.hgetall(f"{job_key(job)}:results"))
        found = [stored_result(field, text) for field, text in texts.items()]
        return sorted(found, key=lambda result: (result.index, result.rung))

    def get(self, job: str, index: int, rung: Rung) -> BatchResult | None:
        """Return a batch's result at a rung, if it was not ok and no later rung has settled it."""
        field = batch_field(index, rung)
        text = cast(str | None, self.redis.hget(f"{job_key(job)}:results", field))
        return None if text is None else stored_result(field, text)

    def has(self, result: BatchResult) -> bool:
        """Return whether a result of the same batch at the same rung is counted."""
        return bool(self.redis.getbit(done_key(result), result.index))

    def complete(self, result: BatchResult, *, owner: str | None = None) -> bool:
        """Count a result; True for the first report of this batch at this rung.

        A failure counts only while ``owner`` has the lease: the next owner may succeed.
        """
        return bool(self._scripts["complete"](**script_input(result, owner)))

    def complete_all(self, results: Iterable[BatchResult], *, only_stored: bool = False) -> None:
        """Count results in one round trip.

        Args:
            only_stored: whether to count only shards that are not counted yet: see ``set_counted``.
        """
        with self.redis.pipeline(transaction=False) as together:
            for result in results:
                self._scripts["complete"](
                    **script_input(result, only_stored=only_stored), client=together
                )
            together.execute()

    def reopen(self, result: BatchResult) -> bool:
        """Take a result back, so that its batch can be tried again.

        Of a batch that went through several rungs, the last one's result goes first.
        """
        return bool(self._scripts["reopen"](**script_input(result)))


def stored_result(field: str, text: str) -> BatchResult:
    """Read a stored result: of its unstable rows alone, or of those that crash their worker.

    Raises:
        UserError: this version cannot read it.
    """
    try:
        result = BatchResult.model_validate_json(text)
    except ValueError as error:
        raise UserError(
            f"Result {field} is of another version of this program: {text[:TEXT_SHOWN]}"
        ) from error
    if field.endswith(POISON_SUFFIX):
        return result.model_copy(update={"unstable": (), "next": None, "records": 0})
    return result.model_copy(update={"poisoned": ()})


def script_input(
    result: BatchResult, owner: str | None = None, *, only_stored: bool = False
) -> dict[str, Any]:
    """Return keys and arguments of the scripts that count a result or take it back."""
    key = job_key(result.job)
    parts = ("leases", "owners", "results", "attempts", "deaths", "trails", "begun", "stored")
    keys = [key, done_key(result), *(f"{key}:{part}" for part in parts)]
    return {"keys": keys, "args": [result.model_dump_json(), owner or "", int(only_stored)]}
