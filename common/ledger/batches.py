"""Which batches of a job are done, begun, stored or outstanding."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from redis import Redis

from common.job.manifest import Manifest
from common.ledger.keys import job_key
from common.ledger.leases import Leases
from common.ledger.results import Results
from common.ledger.scripts import load_scripts
from common.rungs import Rung
from common.wire.messages import Batch, retry_of

#: One boolean for each batch of a job.
Flags = npt.NDArray[np.bool_]


class Batches:
    """The batches of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("set_counted",))
        self._leases = Leases(redis)
        self._results = Results(redis)

    def done(self, manifest: Manifest, rung: Rung) -> Flags:
        """Which batches of the job have a result at a rung: a boolean for each."""
        return self._flags(manifest, f"done:{rung}")

    def stored(self, manifest: Manifest) -> Flags:
        """Which batches have a shard in the store that is not counted yet."""
        return self._flags(manifest, "stored")

    def has_stored(self, job: str) -> bool:
        return bool(self.redis.exists(f"{job_key(job)}:stored"))

    def set_counted(self, job: str, indices: Sequence[int]) -> None:
        """Note that what the store has of these batches is counted, or is of no use."""
        self._scripts["set_counted"](keys=[f"{job_key(job)}:stored"], args=indices)

    def begun(self, manifest: Manifest) -> Flags:
        """Which batches of the job were claimed at least once, or are done."""
        return self._flags(manifest, "begun")

    def _flags(self, manifest: Manifest, part: str) -> Flags:
        bitmap: bytes | None = self.redis.execute_command(
            "GET", f"{job_key(manifest.job)}:{part}", NEVER_DECODE=True
        )
        # Filled up here: of no bytes at all, NumPy 2.4 makes bits at random.
        whole = (bitmap or b"").ljust(-(-manifest.batches // 8), b"\0")
        # As Redis's GETBIT: bit 0 is the first byte's highest.
        return np.unpackbits(np.frombuffer(whole, np.uint8))[: manifest.batches].astype(bool)

    def outstanding(self, manifest: Manifest, published: int | None = None) -> Iterator[Batch]:
        """Batches that have no result at a rung that is theirs, and no lease; those of higher rungs
        first.

        Args:
            published: leave out batches from this one on that are at their first rung.
        """
        leased = self._leases.held(manifest.job)
        # In this order: a batch that is done meanwhile is looked for at its next rung.
        done = (self.done(manifest, manifest.rung) | self.stored(manifest))[:published]
        for retry in self.retries(manifest).values():
            if (retry.index, retry.rung) not in leased:
                yield retry
        for index in np.flatnonzero(~done).tolist():
            if (index, manifest.rung) not in leased:
                yield manifest.batch(index)

    def retries(self, manifest: Manifest) -> dict[tuple[int, Rung], Batch]:
        """What is to be done at the ladder's higher rungs, by batch and rung."""
        results = self._results.all(manifest.job)
        settled = {(result.index, result.rung) for result in results}
        retries = [
            retry_of(manifest.batch(result.index), result) for result in results if result.next
        ]
        by_rung = {(retry.index, retry.rung): retry for retry in retries}
        return {place: retry for place, retry in by_rung.items() if place not in settled}
