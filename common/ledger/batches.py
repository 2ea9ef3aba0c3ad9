"""The batches of a job: done, begun, stored, outstanding."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from redis import Redis

from common.job.manifest import Manifest
from common.ledger.keys import job_key
from common.ledger.leases import Leases
from common.ledger.results import Results
from common.ledger.scripts import load_scripts
from common.rungs import Rung, ladder
from common.wire.messages import Batch, BatchResult, Status, retry_of

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
        """Return which batches have a result at a rung: a boolean for each."""
        return self._flags(manifest, f"done:{rung}")

    def stored(self, manifest: Manifest) -> Flags:
        """Return which batches have a shard in the store that is not counted yet."""
        return self._flags(manifest, "stored")

    def has_stored(self, job: str) -> bool:
        """Return whether any batch has a shard in the store that is not counted yet."""
        return bool(self.redis.exists(f"{job_key(job)}:stored"))

    def set_counted(self, manifest: Manifest, indices: Sequence[int]) -> None:
        """Record that the shards of these batches are counted, or unusable."""
        key = job_key(manifest.job)
        args = [manifest.created.timestamp(), *indices]
        self._scripts["set_counted"](keys=[key, f"{key}:stored"], args=args)

    def settled(self, manifest: Manifest, known: Flags) -> dict[int, tuple[Rung, ...]]:
        """Return the batches that have no work left, each with the rungs that it went through.

        Those that failed are left out, and those that are ``known`` already.
        """
        # In this order: a batch that is done by now has its retry, if any, in what is read next.
        done = self.done(manifest, manifest.rung)
        results = self._results.all(manifest.job)
        rungs = {manifest.rung: done}
        for rung in ladder(manifest.rung)[1:]:
            rungs[rung] = self.done(manifest, rung)
        settled = done & ~known
        settled[[index for index, _ in self._retries(manifest, results)]] = False
        settled[[result.index for result in results if result.status is Status.FAILED]] = False
        return {
            index: tuple(rung for rung, flags in rungs.items() if flags[index])
            for index in np.flatnonzero(settled).tolist()
        }

    def begun(self, manifest: Manifest) -> Flags:
        """Return which batches were claimed at least once, or have a result."""
        return self._flags(manifest, "begun")

    def _flags(self, manifest: Manifest, part: str) -> Flags:
        bitmap: bytes | None = self.redis.execute_command(
            "GET", f"{job_key(manifest.job)}:{part}", NEVER_DECODE=True
        )
        # Padded to full length here: NumPy 2.4 unpacks an empty array into random bits.
        whole = (bitmap or b"").ljust(-(-manifest.batches // 8), b"\0")
        # Redis numbers bits as NumPy does: bit 0 is the highest of the first byte.
        return np.unpackbits(np.frombuffer(whole, np.uint8))[: manifest.batches].astype(bool)

    def outstanding(self, manifest: Manifest, published: int | None = None) -> Iterator[Batch]:
        """Yield the batches with work left and no lease, those at a higher rung first.

        Args:
            published: the end of the batches considered at the first rung; None for all.
        """
        leased = self._leases.held(manifest.job)
        # Read before the retries: a batch that completes meanwhile is seen at its next rung.
        done = (self.done(manifest, manifest.rung) | self.stored(manifest))[:published]
        for retry in self.retries(manifest).values():
            if (retry.index, retry.rung) not in leased:
                yield retry
        for index in np.flatnonzero(~done).tolist():
            if (index, manifest.rung) not in leased:
                yield manifest.batch(index)

    def retries(self, manifest: Manifest) -> dict[tuple[int, Rung], Batch]:
        """Return the retries that have no result yet, by batch and rung."""
        return self._retries(manifest, self._results.all(manifest.job))

    def _retries(
        self, manifest: Manifest, results: Sequence[BatchResult]
    ) -> dict[tuple[int, Rung], Batch]:
        settled = {(result.index, result.rung) for result in results}
        retries = [
            retry_of(manifest.batch(result.index), result) for result in results if result.next
        ]
        by_rung = {(retry.index, retry.rung): retry for retry in retries}
        return {place: retry for place, retry in by_rung.items() if place not in settled}
