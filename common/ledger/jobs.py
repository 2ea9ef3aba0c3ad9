"""Jobs in the ledger: create, resume, cancel, forget; states and progress."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import cast

import numpy as np
from redis import Redis
from redis.exceptions import ResponseError

from common.job.manifest import Manifest
from common.ledger.batches import Flags
from common.ledger.keys import JOB_PARTS, job_key
from common.ledger.leases import LEASE_SECONDS
from common.ledger.progress import JobState, OnInstability, Progress
from common.ledger.scripts import Argument, load_scripts
from common.ledger.unreadable import is_odd_value, unreadable
from common.rungs import Rung
from common.wire.queues import KEY_PREFIX, priority_of

#: The counters in a job's hash. Other fields are text, or of a newer version.
COUNTER = re.compile(
    r"published|batches|records|tokens|leases_lost|milliseconds|tokens_done"
    r"|(batches|rows|embedded_at|unstable_at)_\w+"
)

STATES = {state.value: state for state in JobState}


class Jobs:
    """All jobs on one Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = load_scripts(
            redis,
            (
                *("create", "resume", "cancel", "forget", "pin_weights"),
                *("states", "progress", "advance", "set_queue", "grow"),
            ),
        )

    def create(
        self,
        manifest: Manifest,
        queue: str,
        stored: Flags | None = None,
        *,
        staging: bool = False,
        on_instability: OnInstability = "retry",
    ) -> bool:
        """Create a job; False if the ledger knows it already, or a later staging of it.

        An earlier staging of the same name is forgotten: its objects are no longer in the store.

        Args:
            queue: the queue of the job's first rung.
            stored: the batches with a shard in the store, which are not outstanding until
                ``set_counted``.
            staging: whether batches follow, with ``grow``: until then, the job does not end.
            on_instability: until the job is resumed.
        """
        key = job_key(manifest.job)
        fields: dict[str, Argument] = {
            "state": JobState.STAGING if staging else JobState.OPEN,
            "model": manifest.model,
            "queue": queue,
            "rung": manifest.rung,
            "on_instability": on_instability,
            **totals_of(manifest),
        }
        others = {
            "model_digest": manifest.model_digest,
            "owner": manifest.owner,
            "input": manifest.input,
            # Workers with others would compute what does not belong beside rows taken over.
            "weights": manifest.reused_weights,
        }
        fields |= {name: text for name, text in others.items() if text}
        keys = [f"{KEY_PREFIX}jobs", key, *(f"{key}:{part}" for part in JOB_PARTS)]
        bitmap = b"" if stored is None or not stored.any() else np.packbits(stored).tobytes()
        args: list[Argument] = [manifest.job, manifest.created.timestamp(), bitmap]
        args += chain.from_iterable(fields.items())
        return bool(self._scripts["create"](keys=keys, args=args))

    def grow(self, manifest: Manifest, *, is_whole: bool) -> JobState | None:
        """Add batches to a job that is being staged; one that is staged stays as it is.

        Args:
            manifest: the job's so far.
            is_whole: whether it has the last batch: then the job can finish, or has.

        Returns:
            The job's state afterwards; None if the ledger does not know this staging of it.
        """
        args: list[Argument] = [manifest.created.timestamp(), int(is_whole)]
        args += chain.from_iterable(totals_of(manifest).items())
        state = self._scripts["grow"](keys=[job_key(manifest.job)], args=args)
        return None if state is None else JobState(state)

    def resume(self, manifest: Manifest, on_instability: OnInstability) -> bool:
        """Resume a job, also a stopped or cancelled one, and have it published again.

        Returns:
            False if the ledger does not know this staging of it.
        """
        args: list[Argument] = [on_instability, manifest.created.timestamp()]
        return bool(self._scripts["resume"](keys=[job_key(manifest.job)], args=args))

    def cancel(self, job: str) -> JobState | None:
        """Cancel a job: until it is resumed, none of its batches can be claimed.

        Batches being computed are dropped when their lease is next renewed; completed ones stay.

        Returns:
            The job's state afterwards: a finished job stays finished; None for an unknown job.
        """
        state = self._scripts["cancel"](keys=[job_key(job)])
        return None if state is None else JobState(state)

    def stops_at_instability(self, job: str) -> bool:
        """Return whether a row that is not finite stops the job."""
        return self.redis.hget(job_key(job), "on_instability") == "fail"

    def names(self) -> list[str]:
        """Return the names of all jobs, newest first."""
        return cast(list[str], self.redis.zrevrange(f"{KEY_PREFIX}jobs", 0, -1))

    def states(self) -> dict[str, tuple[JobState | None, float]]:
        """Return state and creation time (seconds since the epoch) of every job, newest first.

        The state is None if this version does not know it, or there is none.
        """
        flat = self._scripts["states"](keys=[f"{KEY_PREFIX}jobs"], args=[job_key("")])
        entries = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return {job: (STATES.get(state), seconds_of(created)) for job, state, created in entries}

    def progress(self, job: str) -> Progress | None:
        """Return a job's counters; None for an unknown job.

        Raises:
            UnreadableJobError: this version cannot read them.
        """
        try:
            return self._progress(job)
        except (ValueError, KeyError) as error:
            raise unreadable(job, error) from error
        except ResponseError as error:
            if not is_odd_value(error):
                raise
            raise unreadable(job, error) from error

    def _progress(self, job: str) -> Progress | None:
        key = job_key(job)
        keys = [key, f"{key}:leases", f"{key}:begun"]
        flat, leased, waiting, now = self._scripts["progress"](keys=keys, args=[LEASE_SECONDS])
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if "batches" not in fields:
            return None
        return Progress(
            job=job,
            state=JobState(fields["state"]),
            model=fields["model"],
            queue=fields["queue"],
            # Jobs of version 0.1.0 have their first rung in the queue's name alone.
            first_rung=Rung(fields.get("rung") or fields["queue"].rpartition(".")[2]),
            created=float(fields["created"]),
            batches=int(fields["batches"]),
            records=int(fields["records"]),
            identical=int(fields.get("identical", 0)),
            tokens=int(fields["tokens"]),
            published=int(fields.get("published", 0)),
            waiting=max(0, int(waiting)),
            leased=int(leased),
            counts=Counter({n: int(v) for n, v in fields.items() if COUNTER.fullmatch(n)}),
            weights=fields.get("weights"),
            model_digest=fields.get("model_digest"),
            signed_with=fields.get("signed_with"),
            owner=fields.get("owner"),
            input=fields.get("input"),
            started=optional_seconds(fields.get("started")),
            ended=optional_seconds(fields.get("ended")),
            tokens_at_start=int(fields.get("tokens_at_start", 0)),
            seen=float(now),
        )

    def set_queue(self, manifest: Manifest, queue: str) -> bool:
        """Set the queue of a job's first rung, whose name has the job's priority.

        Returns:
            False if the ledger does not know this staging of it.
        """
        args: list[Argument] = [manifest.created.timestamp(), queue]
        return bool(self._scripts["set_queue"](keys=[job_key(manifest.job)], args=args))

    def queues(self, jobs: Iterable[str]) -> dict[str, tuple[str | None, bool]]:
        """Return the queue of each job's first rung, and whether it was changed by ``set_queue``.

        The queue is None if there is no such job.
        """
        names = list(jobs)
        with self.redis.pipeline(transaction=False) as together:
            for job in names:
                together.hmget(job_key(job), "queue", "queue_changed")
            found = together.execute(raise_on_error=False)
        return {
            job: (None, False)
            if isinstance(fields, ResponseError)
            else (fields[0], bool(fields[1]))
            for job, fields in zip(names, found, strict=True)
        }

    def with_priority(self, manifest: Manifest) -> Manifest:
        """Return a job's manifest with the priority that the ledger has, if it knows the job."""
        queue, _ = self.queues([manifest.job])[manifest.job]
        return manifest if queue is None else manifest.with_priority(priority_of(queue))

    def advance(self, manifest: Manifest, published: int, *, signed_with: str = "") -> None:
        """Record that the first ``published`` batches of a job have been published.

        Args:
            signed_with: the name of the key that signed their messages; empty: none did.
        """
        args: list[Argument] = [published, manifest.created.timestamp(), signed_with]
        self._scripts["advance"](keys=[job_key(manifest.job)], args=args)

    def pin_weights(self, manifest: Manifest, weights: str) -> None:
        """Fix the weights that a job's embeddings come from, unless they are fixed already."""
        args: list[Argument] = [manifest.created.timestamp(), weights]
        self._scripts["pin_weights"](keys=[job_key(manifest.job)], args=args)

    def forget(self, job: str, created: float | None = None, *, only_closed: bool = False) -> bool:
        """Remove a job from the ledger; it stays in the store.

        Args:
            created: when the job was staged; another staging of it stays. None: any.
            only_closed: whether an open job stays.
        """
        key = job_key(job)
        keys = [f"{KEY_PREFIX}jobs", key, *(f"{key}:{part}" for part in JOB_PARTS)]
        args: list[Argument] = [job, "" if created is None else created, int(only_closed)]
        return bool(self._scripts["forget"](keys=keys, args=args))


def totals_of(manifest: Manifest) -> dict[str, Argument]:
    """Return the fields of a job that grow with its batches."""
    totals: dict[str, Argument] = {
        "batches": manifest.batches,
        "records": manifest.computed,
        "tokens": manifest.tokens,
    }
    identical = manifest.report.identical
    return totals | ({"identical": identical} if identical else {})


def optional_seconds(text: str | None) -> float | None:
    return None if text is None else seconds_of(text)


def seconds_of(text: str) -> float:
    """Return the seconds since the epoch that a text gives; NaN if it gives none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
