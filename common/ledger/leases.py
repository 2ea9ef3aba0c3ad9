"""Leases: which worker may compute a batch, and the crashes of earlier ones."""

from typing import cast

from redis import Redis

from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, ReleaseReason
from common.ledger.keys import batch_field, done_key, job_key, parse_batch_field
from common.ledger.scripts import Argument, load_scripts
from common.ledger.unreadable import unreadable
from common.rungs import Rung
from common.wire.messages import Batch

#: Seconds a lease lasts without renewal.
LEASE_SECONDS = 30

#: Seconds between two renewals of a lease, or of the keeper's lock.
RENEW_SECONDS = 10


class Leases:
    """The leases of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(
            redis, ("claim", "renew", "release", "save_crash_record", "expire")
        )

    def held(self, job: str) -> set[tuple[int, Rung]]:
        """Return the batches, with their rungs, that are leased or whose lease is not expired yet
        by ``expire``.

        Raises:
            UnreadableJobError: one of them is of a rung that this version does not know.
        """
        fields = cast(list[str], self.redis.zrange(f"{job_key(job)}:leases", 0, -1))
        try:
            return set(map(parse_batch_field, fields))
        except ValueError as error:
            raise unreadable(job, error) from error

    def owners(self, job: str) -> list[str]:
        """Return the owners of a job's leases, also of those that are not expired yet."""
        return cast(list[str], self.redis.hvals(f"{job_key(job)}:owners"))

    def claim(
        self, batch: Batch, *, owner: str, weights: str, model_digest: str | None = None
    ) -> ClaimResult:
        """Claim a batch for ``LEASE_SECONDS``.

        Args:
            owner: a name of this attempt alone, not of the worker.
            weights: fingerprint of the weights that the batch would be computed with.
            model_digest: digest of the files that they were loaded from; None for a name.
        """
        args: list[Argument] = [
            batch.index,
            batch_field(batch.index, batch.rung),
            owner,
            weights,
            LEASE_SECONDS,
            "" if batch.created is None else batch.created,
            int(batch.previous_rung is None),
            model_digest or "",
        ]
        key = job_key(batch.job)
        parts = ("leases", "owners", "attempts", "deaths", "begun")
        keys = [key, done_key(batch), *(f"{key}:{part}" for part in parts)]
        outcome, attempts, crashes, previous = self._scripts["claim"](keys=keys, args=args)
        return ClaimResult(ClaimOutcome(outcome), int(attempts), int(crashes), previous)

    def renew(self, batch: Batch, *, owner: str) -> bool:
        """Renew a lease; False if ``owner`` has lost it or its job was cancelled."""
        key, field = job_key(batch.job), batch_field(batch.index, batch.rung)
        keys = [f"{key}:leases", f"{key}:owners", key]
        return bool(self._scripts["renew"](keys=keys, args=[field, owner, LEASE_SECONDS]))

    def release(
        self, batch: Batch, *, owner: str, reason: ReleaseReason = ReleaseReason.FAILED
    ) -> bool:
        """End a lease without a result; False if ``owner`` has lost it."""
        key, field = job_key(batch.job), batch_field(batch.index, batch.rung)
        keys = [f"{key}:{part}" for part in ("leases", "owners", "attempts", "deaths")]
        return bool(self._scripts["release"](keys=keys, args=[field, owner, reason]))

    def crash_record(self, batch: Batch) -> CrashRecord:
        """Return the crash record of a batch; an empty one if there is none."""
        field = batch_field(batch.index, batch.rung)
        text = cast(str | None, self.redis.hget(f"{job_key(batch.job)}:trails", field))
        return CrashRecord() if text is None else CrashRecord.model_validate_json(text)

    def crashing(self, job: str, crashes: int) -> int:
        """Return how many batches without a result crashed at least this many times."""
        found = cast(list[str], self.redis.hvals(f"{job_key(job)}:deaths"))
        return sum(int(text) >= crashes for text in found)

    def save_crash_record(self, batch: Batch, record: CrashRecord, *, owner: str) -> bool:
        """Save the crash record of a batch; False if ``owner`` has lost its lease."""
        key, field = job_key(batch.job), batch_field(batch.index, batch.rung)
        keys = [f"{key}:owners", f"{key}:trails"]
        args: list[Argument] = [field, owner, record.model_dump_json()]
        return bool(self._scripts["save_crash_record"](keys=keys, args=args))

    def expire(self, job: str) -> list[tuple[int, Rung, str]]:
        """Remove a job's expired leases; return batch, rung and owner of each."""
        key = job_key(job)
        keys = [key, f"{key}:leases", f"{key}:owners", f"{key}:deaths"]
        flat = self._scripts["expire"](keys=keys, args=[LEASE_SECONDS])
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return sorted((*parse_batch_field(field), owner) for field, owner in pairs)
