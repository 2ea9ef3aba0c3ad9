"""Leases: who may compute a batch, and what is known of those who could not."""

from typing import cast

from redis import Redis

from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, Release
from common.ledger.fields import LEASE_SECONDS, Field
from common.ledger.keys import done_key, field_of, job_key, place_of
from common.ledger.scripts import load_scripts
from common.rungs import Rung
from common.wire.messages import Batch


class Leases:
    """The leases of all jobs."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(redis, ("claim", "renew", "release", "follow", "expire"))

    def held(self, job: str) -> set[tuple[int, Rung]]:
        """Which batches, at which rung, somebody holds, or held until lately."""
        fields = cast(list[str], self.redis.zrange(f"{job_key(job)}:leases", 0, -1))
        return set(map(place_of, fields))

    def claim(self, batch: Batch, *, owner: str, weights: str) -> ClaimResult:
        """Try to take a batch for ``LEASE_SECONDS``; ``owner`` names this one attempt."""
        args: list[Field] = [
            batch.index,
            field_of(batch.index, batch.rung),
            owner,
            weights,
            LEASE_SECONDS,
            "" if batch.created is None else batch.created,
            int(batch.previous_rung is None),
        ]
        key = job_key(batch.job)
        parts = ("leases", "owners", "attempts", "deaths", "begun")
        keys = [key, done_key(batch), *(f"{key}:{part}" for part in parts)]
        outcome, number, deaths, lost_by = self._scripts["claim"](keys=keys, args=args)
        return ClaimResult(ClaimOutcome(outcome), int(number), int(deaths), lost_by)

    def renew(self, batch: Batch, *, owner: str) -> bool:
        """Prolong a claim; False if it is no longer this owner's, or its job was cancelled."""
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        keys = [f"{key}:leases", f"{key}:owners", key]
        return bool(self._scripts["renew"](keys=keys, args=[field, owner, LEASE_SECONDS]))

    def release(self, batch: Batch, *, owner: str, why: Release = Release.FAILED) -> bool:
        """Give a claim back without a result."""
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        keys = [f"{key}:{part}" for part in ("leases", "owners", "attempts", "deaths")]
        return bool(self._scripts["release"](keys=keys, args=[field, owner, why]))

    def crash_record(self, batch: Batch) -> CrashRecord:
        """What an earlier owner of a batch noted of it."""
        field = field_of(batch.index, batch.rung)
        text = cast(str | None, self.redis.hget(f"{job_key(batch.job)}:trails", field))
        return CrashRecord() if text is None else CrashRecord.model_validate_json(text)

    def record_crash(self, batch: Batch, trail: CrashRecord, *, owner: str) -> bool:
        """Note what ``owner`` is about to do with a batch; False if it is no longer theirs."""
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        args: list[Field] = [field, owner, trail.model_dump_json()]
        return bool(self._scripts["follow"](keys=[f"{key}:owners", f"{key}:trails"], args=args))

    def expire(self, job: str) -> list[tuple[int, Rung, str]]:
        """Take back the leases that ran out; the batches, at which rung, and who had them."""
        key = job_key(job)
        keys = [key, f"{key}:leases", f"{key}:owners", f"{key}:deaths"]
        flat = self._scripts["expire"](keys=keys)
        return sorted((*place_of(f), o) for f, o in zip(flat[::2], flat[1::2], strict=True))
