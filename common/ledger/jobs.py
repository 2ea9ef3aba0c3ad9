"""Jobs in the ledger: created, resumed, cancelled, and how far each is."""

from collections import Counter
from itertools import chain
from typing import cast

import numpy as np
from redis import Redis

from common.job.manifest import Manifest
from common.ledger.batches import Flags
from common.ledger.keys import JOB_PARTS, job_key
from common.ledger.progress import JobState, OnInstability, Progress
from common.ledger.scripts import Argument, load_scripts
from common.rungs import Rung
from common.wire.queues import KEY_PREFIX


class Jobs:
    """All jobs on one Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(
            redis, ("create", "resume", "cancel", "states", "progress", "advance")
        )

    def create(self, manifest: Manifest, queue: str, stored: Flags | None = None) -> bool:
        """Open a job; True if it was not there. A second call changes nothing.

        What is known of an earlier staging under this name is forgotten: its store is gone.

        Args:
            stored: the batches of which the store has a shard: they are not given out before
                ``set_counted``.
        """
        key = job_key(manifest.job)
        fields: dict[str, Argument] = {
            "state": JobState.OPEN,
            "model": manifest.model,
            "queue": queue,
            "rung": manifest.rung,
            "batches": manifest.batches,
            "records": manifest.report.records,
            "tokens": manifest.tokens,
        }
        keys = [f"{KEY_PREFIX}jobs", key, *(f"{key}:{part}" for part in JOB_PARTS)]
        bitmap = b"" if stored is None or not stored.any() else np.packbits(stored).tobytes()
        args: list[Argument] = [manifest.job, manifest.created.timestamp(), bitmap]
        args += chain.from_iterable(fields.items())
        return bool(self._scripts["create"](keys=keys, args=args))

    def resume(self, job: str, on_instability: OnInstability) -> None:
        """Have a job go on, with its batches to be published again; also one that was stopped or
        cancelled. And say what is to be done about instability from now on.
        """
        self._scripts["resume"](keys=[job_key(job)], args=[on_instability])

    def cancel(self, job: str) -> JobState | None:
        """Give out no more of a job's batches, until it is resumed.

        What is being computed is dropped at the next renewal of its claim; what is done stays.

        Returns:
            The job's state from now on: one that was finished stays so. None if it is not known.
        """
        state = self._scripts["cancel"](keys=[job_key(job)])
        return None if state is None else JobState(state)

    def stops_at_instability(self, job: str) -> bool:
        return self.redis.hget(job_key(job), "on_instability") == "fail"

    def names(self) -> list[str]:
        """All jobs, newest first."""
        return cast(list[str], self.redis.zrevrange(f"{KEY_PREFIX}jobs", 0, -1))

    def states(self) -> dict[str, tuple[JobState, float]]:
        """The state of every job, and when it was submitted; newest first."""
        flat = self._scripts["states"](keys=[f"{KEY_PREFIX}jobs"], args=[job_key("")])
        entries = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return {job: (JobState(state), float(created)) for job, state, created in entries}

    def progress(self, job: str) -> Progress | None:
        """A job's counters, or None if there is no such job."""
        key = job_key(job)
        keys = [key, f"{key}:leases", f"{key}:begun"]
        flat, leased, waiting = self._scripts["progress"](keys=keys)
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if "batches" not in fields:
            return None
        text = {"state", "model", "queue", "created", "weights", "on_instability", "rung"}
        return Progress(
            job=job,
            state=JobState(fields["state"]),
            model=fields["model"],
            queue=fields["queue"],
            # A job of a version that did not store its first rung has it in its queue's name.
            first_rung=Rung(fields.get("rung") or fields["queue"].rpartition(".")[2]),
            created=float(fields["created"]),
            batches=int(fields["batches"]),
            records=int(fields["records"]),
            tokens=int(fields["tokens"]),
            published=int(fields.get("published", 0)),
            waiting=max(0, int(waiting)),
            leased=int(leased),
            counts=Counter({n: int(value) for n, value in fields.items() if n not in text}),
            weights=fields.get("weights"),
        )

    def advance(self, manifest: Manifest, published: int) -> None:
        """Note that the first ``published`` of a job's batches have been sent to the queue."""
        args: list[Argument] = [published, manifest.created.timestamp()]
        self._scripts["advance"](keys=[job_key(manifest.job)], args=args)

    def pin_weights(self, job: str, weights: str) -> None:
        """Note the weights that a job's numbers come from, if none are noted yet."""
        self.redis.hsetnx(job_key(job), "weights", weights)

    def forget(self, job: str) -> None:
        """Remove everything known of a job; the store still has it."""
        key = job_key(job)
        self.redis.delete(key, *(f"{key}:{part}" for part in JOB_PARTS))
        self.redis.zrem(f"{KEY_PREFIX}jobs", job)
