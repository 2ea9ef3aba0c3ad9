"""The ledger: a job's progress in Redis, changed only by Lua scripts that can be run twice.

Keys, each after ``virnucpro:``

    jobs                        sorted set of jobs by creation
    job:<job>                   hash of counters and state
    job:<job>:done:<rung>       bitmap of batches
    job:<job>:leases            sorted set of <batch>.<rung> by expiry, in Redis's time
    job:<job>:owners            hash of <batch>.<rung>: who holds the lease
    job:<job>:attempts          hash of <batch>.<rung>: claims so far
    job:<job>:staging           who writes its input now; expires
    job:<job>:results           hash of <batch>.<rung>: results that were not ok, as JSON; one with
                                rows that go on stays until the next rung's result is there
    job:<job>:events            list of what went wrong and was mended, newest first
    worker:<name>               what a live worker serves; expires
    dead                        list of messages that no worker could read, newest first

The store is the truth: a ledger that is gone can be built again from it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict
from redis import Redis

from common.broker import KEY_PREFIX
from common.events import DeadLetter, Event
from common.manifest import Manifest
from common.messages import Batch, BatchResult, Document, retry_of
from common.rungs import Rung, ladder

#: Seconds that a claim lasts without renewal, and between renewals.
LEASE_SECONDS = 30
RENEW_SECONDS = 10

WORKER_TTL_SECONDS = 30

#: How long a producer that is gone keeps others from staging its job.
STAGING_SECONDS = 60

#: Keys of a job beside its hash.
JOB_PARTS = ("leases", "owners", "attempts", "results", "events", *(f"done:{r}" for r in Rung))

#: Events of a job, and dead letters, that are kept; older ones are in the logs.
EVENTS_KEPT = 1000

DEAD_LETTERS = f"{KEY_PREFIX}dead"


SCRIPTS = (
    "claim",
    "renew",
    "release",
    "complete",
    "reopen",
    "resume",
    "cancel",
    "expire",
    "progress",
)

#: What is to be done about a row that is not finite: run it again at the next rung, or stop.
OnInstability = Literal["retry", "fail"]

Field = str | int | float


class Claim(StrEnum):
    """What became of an attempt to take a batch."""

    TAKEN = "taken"
    DONE = "done"
    HELD = "held"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    OTHER_WEIGHTS = "other_weights"
    UNKNOWN = "unknown"


class JobState(StrEnum):
    OPEN = "open"
    CANCELLED = "cancelled"
    STOPPED = "stopped"  # by the first instability, where the user asked for it
    FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A job's counters at one moment."""

    job: str
    state: JobState
    model: str
    queue: str
    created: float
    batches: int
    records: int
    tokens: int
    leased: int
    counts: dict[str, int]
    weights: str | None

    def count(self, name: str) -> int:
        return self.counts.get(name, 0)

    @property
    def queues(self) -> dict[Rung, str]:
        """The queues that the job's batches may be in, by rung."""
        first, *higher = ladder(Rung(self.queue.rpartition(".")[2]))
        return {first: self.queue} | {rung: f"{self.queue}.{rung}" for rung in higher}

    @property
    def batches_done(self) -> int:
        return self.count("batches_done")

    @property
    def rows_by_precision(self) -> dict[str, int]:
        rows = {str(rung): self.count(f"rows_{rung}") for rung in Rung}
        return {rung: count for rung, count in rows.items() if count}

    @property
    def rows_done(self) -> int:
        return sum(self.rows_by_precision.values())

    @property
    def finished(self) -> bool:
        return self.state is JobState.FINISHED


class WorkerInfo(BaseModel):
    """What a worker process says of itself while it lives."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    weights: str | None  # None while they are loading
    device: str
    precision: Rung
    queues: tuple[str, ...]


class Ledger:
    """The ledger of all jobs on one Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        scripts = files("common") / "lua"
        self._scripts = {
            name: redis.register_script((scripts / f"{name}.lua").read_text()) for name in SCRIPTS
        }

    # --- jobs ---------------------------------------------------------------------------------

    def create(self, manifest: Manifest, queue: str) -> bool:
        """Open a job; True if it was not there. A second call changes nothing.

        What is known of an earlier staging under this name is forgotten: its store is gone.
        """
        key, created = job_key(manifest.job), manifest.created.timestamp()
        if self.redis.hget(key, "created") == str(created):
            return False
        fields: dict[str, Field] = {
            "state": JobState.OPEN,
            "model": manifest.model,
            "queue": queue,
            "created": created,
            "batches": manifest.batches,
            "records": manifest.report.records,
            "tokens": manifest.tokens,
        }
        # All or nothing: a job that is known by half would never be finished.
        with self.redis.pipeline(transaction=True) as together:
            together.delete(key, *(f"{key}:{part}" for part in JOB_PARTS))
            together.hset(key, mapping=cast(Mapping[Any, Any], fields))
            together.zadd(f"{KEY_PREFIX}jobs", {manifest.job: created})
            together.execute()
        return True

    def resume(self, job: str, on_instability: OnInstability) -> None:
        """Say what is to be done about instability from now on; a job that was stopped or cancelled
        goes on.
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

    def jobs(self) -> list[str]:
        """All jobs, newest first."""
        return cast(list[str], self.redis.zrevrange(f"{KEY_PREFIX}jobs", 0, -1))

    def progress(self, job: str) -> Progress | None:
        """A job's counters, or None if there is no such job."""
        key = job_key(job)
        flat, leased = self._scripts["progress"](keys=[key, f"{key}:leases"])
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        if "batches" not in fields:
            return None
        text = {"state", "model", "queue", "created", "weights", "on_instability"}
        return Progress(
            job=job,
            state=JobState(fields["state"]),
            model=fields["model"],
            queue=fields["queue"],
            created=float(fields["created"]),
            batches=int(fields["batches"]),
            records=int(fields["records"]),
            tokens=int(fields["tokens"]),
            leased=int(leased),
            counts={name: int(value) for name, value in fields.items() if name not in text},
            weights=fields.get("weights"),
        )

    def results(self, job: str) -> list[BatchResult]:
        """Results that were not ok, by batch."""
        texts = self.redis.hvals(f"{job_key(job)}:results")
        found = [BatchResult.model_validate_json(text) for text in texts]
        return sorted(found, key=lambda result: (result.index, result.rung))

    def result(self, job: str, index: int, rung: Rung) -> BatchResult | None:
        """A batch's result at a rung, if it was not ok and is still of interest."""
        text = cast(str | None, self.redis.hget(f"{job_key(job)}:results", field_of(index, rung)))
        return None if text is None else BatchResult.model_validate_json(text)

    def done(self, manifest: Manifest, rung: Rung) -> set[int]:
        """Batches of the job that have a result at a rung."""
        bitmap: bytes | None = self.redis.execute_command(
            "GET", f"{job_key(manifest.job)}:done:{rung}", NEVER_DECODE=True
        )
        return {index for index in range(manifest.batches) if is_set(bitmap or b"", index)}

    def outstanding(self, manifest: Manifest) -> Iterator[Batch]:
        """Batches of the job that have no result at a rung that is theirs, and no lease."""
        leased = set(self.redis.zrange(f"{job_key(manifest.job)}:leases", 0, -1))
        done = self.done(manifest, manifest.rung)
        for retry in self.retries(manifest).values():
            if field_of(retry.index, retry.rung) not in leased:
                yield retry
        for index in range(manifest.batches):
            if index not in done and field_of(index, manifest.rung) not in leased:
                yield manifest.batch(index)

    def retries(self, manifest: Manifest) -> dict[tuple[int, Rung], Batch]:
        """What is to be done at the ladder's higher rungs, by batch and rung."""
        results = self.results(manifest.job)
        settled = {(result.index, result.rung) for result in results}
        retries = [
            retry_of(manifest.batch(result.index), result) for result in results if result.next
        ]
        by_rung = {(retry.index, retry.rung): retry for retry in retries}
        return {place: retry for place, retry in by_rung.items() if place not in settled}

    def hold_staging(self, job: str, owner: str) -> bool:
        """Be the only one who stages a job, for ``STAGING_SECONDS`` from each call."""
        key = f"{job_key(job)}:staging"
        if self.redis.set(key, owner, nx=True, ex=STAGING_SECONDS):
            return True
        if self.redis.get(key) != owner:
            return False
        self.redis.expire(key, STAGING_SECONDS)
        return True

    def release_staging(self, job: str, owner: str) -> None:
        """Let others stage a job, if it is still ``owner`` who does."""
        key = f"{job_key(job)}:staging"
        if self.redis.get(key) == owner:
            self.redis.delete(key)

    def pin_weights(self, job: str, weights: str) -> None:
        """Note the weights that a job's numbers come from, if none are noted yet."""
        self.redis.hsetnx(job_key(job), "weights", weights)

    def forget(self, job: str) -> None:
        """Remove everything known of a job; the store still has it."""
        key = job_key(job)
        self.redis.delete(key, *(f"{key}:{part}" for part in JOB_PARTS))
        self.redis.zrem(f"{KEY_PREFIX}jobs", job)

    # --- batches ------------------------------------------------------------------------------

    def claim(self, batch: Batch, *, owner: str, weights: str) -> tuple[Claim, int]:
        """Try to take a batch for ``LEASE_SECONDS``; ``owner`` names this one attempt.

        Returns:
            What became of it, and which attempt at this batch it is, from 1.
        """
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        keys = [key, done_key(batch), f"{key}:leases", f"{key}:owners", f"{key}:attempts"]
        created = "" if batch.created is None else batch.created
        args: list[Field] = [batch.index, field, owner, weights, LEASE_SECONDS, created]
        outcome, attempt = self._scripts["claim"](keys=keys, args=args)
        return Claim(outcome), int(attempt)

    def renew(self, batch: Batch, *, owner: str) -> bool:
        """Prolong a claim; False if it is no longer this owner's, or its job was cancelled."""
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        keys = [f"{key}:leases", f"{key}:owners", key]
        return bool(self._scripts["renew"](keys=keys, args=[field, owner, LEASE_SECONDS]))

    def release(self, batch: Batch, *, owner: str) -> bool:
        """Give a claim back without a result."""
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        return bool(
            self._scripts["release"](keys=[f"{key}:leases", f"{key}:owners"], args=[field, owner])
        )

    def complete(self, result: BatchResult, *, owner: str | None = None) -> bool:
        """Count a result; True for the first report of this batch at this rung.

        A failure counts only if ``owner`` still holds the batch: who took it over may succeed.
        """
        key, field = job_key(result.job), field_of(result.index, result.rung)
        keys = [key, done_key(result), f"{key}:leases", f"{key}:owners", f"{key}:results"]
        args: list[Field] = [
            result.index,
            field,
            result.status,
            result.precision or "none",
            result.records,
            len(result.unstable),
            result.tokens,
            round(1000 * result.seconds),
            result.model_dump_json(),
            owner or "",
            result.rung,
            "" if result.after is None else field_of(result.index, result.after),
            result.next or "",
            int(result.stops_job),
        ]
        return bool(self._scripts["complete"](keys=keys, args=args))

    def reopen(self, result: BatchResult) -> bool:
        """Take a failed result back, so that its batch can be tried again."""
        key, field = job_key(result.job), field_of(result.index, result.rung)
        keys = [key, done_key(result), f"{key}:results", f"{key}:attempts"]
        args: list[Field] = [result.index, field, result.rung]
        return bool(self._scripts["reopen"](keys=keys, args=args))

    def expire_leases(self, job: str) -> list[tuple[int, Rung]]:
        """Take back the leases that ran out; the batches, at which rung, that were lost so."""
        key = job_key(job)
        fields = self._scripts["expire"](keys=[key, f"{key}:leases", f"{key}:owners"])
        return sorted((int(index), Rung(rung)) for index, rung in (f.split(".") for f in fields))

    # --- events -------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Keep an event with its job."""
        self._keep(f"{job_key(event.job or '')}:events", event)

    def events(self, job: str, count: int = EVENTS_KEPT) -> list[Event]:
        """A job's latest events, newest first."""
        texts = self.redis.lrange(f"{job_key(job)}:events", 0, count - 1)
        return [Event.model_validate_json(text) for text in cast(list[str], texts)]

    def bury(self, letter: DeadLetter) -> None:
        """Keep a message that no worker can read, for people to look at."""
        self._keep(DEAD_LETTERS, letter)

    def dead_letters(self, count: int = EVENTS_KEPT) -> list[DeadLetter]:
        """The latest dead letters, newest first."""
        texts = cast(list[str], self.redis.lrange(DEAD_LETTERS, 0, count - 1))
        return [DeadLetter.model_validate_json(text) for text in texts]

    def count_dead_letters(self) -> int:
        return int(self.redis.llen(DEAD_LETTERS))

    def clear_dead_letters(self) -> None:
        self.redis.delete(DEAD_LETTERS)

    def _keep(self, key: str, document: Document) -> None:
        with self.redis.pipeline(transaction=True) as together:
            together.lpush(key, document.model_dump_json(exclude_none=True))
            together.ltrim(key, 0, EVENTS_KEPT - 1)
            together.execute()

    # --- queues and workers -------------------------------------------------------------------

    def queued(self, queue: str) -> int:
        """Messages in a queue that no worker has taken."""
        return int(self.redis.llen(f"{KEY_PREFIX}{queue}"))

    def announce(self, worker: WorkerInfo) -> None:
        """Say that a worker lives; repeat before ``WORKER_TTL_SECONDS`` are over."""
        key = f"{KEY_PREFIX}worker:{worker.name}"
        self.redis.set(key, worker.model_dump_json(), ex=WORKER_TTL_SECONDS)

    def leave(self, worker: WorkerInfo) -> None:
        self.redis.delete(f"{KEY_PREFIX}worker:{worker.name}")

    def workers(self) -> list[WorkerInfo]:
        # Of all keys there are, a few for each job: by default Redis looks at ten in a round trip.
        keys = sorted(self.redis.scan_iter(f"{KEY_PREFIX}worker:*", count=1000))
        texts = self.redis.mget(keys) if keys else []
        return [WorkerInfo.model_validate_json(text) for text in texts if text]


def job_key(job: str) -> str:
    return f"{KEY_PREFIX}job:{job}"


def done_key(of: Batch | BatchResult) -> str:
    return f"{job_key(of.job)}:done:{of.rung}"


def field_of(index: int, rung: Rung) -> str:
    return f"{index}.{rung}"


def is_set(bitmap: bytes, index: int) -> bool:
    """Whether Redis's GETBIT gives 1: bit 0 is the first byte's highest."""
    byte = index // 8
    return byte < len(bitmap) and bool(bitmap[byte] >> (7 - index % 8) & 1)
