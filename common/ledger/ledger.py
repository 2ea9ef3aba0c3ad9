"""The ledger: a job's progress in Redis, changed only by Lua scripts that can be run twice.

Keys, each after ``virnucpro:``

    jobs                        sorted set of jobs by creation
    job:<job>                   hash of counters and state
    job:<job>:stored            bitmap of batches of which the store has a shard that is not counted
                                yet, while the ledger is made anew
    job:<job>:begun             bitmap of batches that were claimed or are done
    job:<job>:done:<rung>       bitmap of batches
    job:<job>:leases            sorted set of <batch>.<rung> by expiry, in Redis's time
    job:<job>:owners            hash of <batch>.<rung>: who holds the lease
    job:<job>:attempts          hash of <batch>.<rung>: claims so far, until it is done
    job:<job>:deaths            hash of <batch>.<rung>: leases that ran out, until it is done
    job:<job>:trails            hash of <batch>.<rung>: what a careful owner is at, as JSON
    job:<job>:staging           who writes its input now; expires
    job:<job>:results           hash of <batch>.<rung>: results that were not ok, as JSON; one with
                                rows that go on stays until the next rung's result is there. Rows
                                that were given up at once are under <batch>.<rung>.poison
    job:<job>:events            list of what went wrong and was mended, newest first
    keeper:<store>              who keeps the jobs of a store now; expires
    kept:<store>                there since a keeper has looked for the store's jobs
    worker:<name>               what a live worker serves; expires
    dead                        list of messages that no worker could read, newest first

The store is the truth: a ledger that is gone can be built again from it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import chain
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from redis import Redis

from common.job.manifest import Manifest
from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, Release
from common.ledger.events import Event
from common.ledger.progress import JobState, Progress
from common.ledger.workers import WorkerInfo
from common.rungs import Rung
from common.wire.dead_letters import DeadLetter
from common.wire.messages import Batch, BatchResult, Document, retry_of
from common.wire.queues import KEY_PREFIX

#: Seconds that a claim lasts without renewal, and between renewals.
LEASE_SECONDS = 30
RENEW_SECONDS = 10

WORKER_TTL_SECONDS = 30

#: How long a producer that is gone keeps others from staging its job, and a keeper from keeping.
STAGING_SECONDS = 60
KEEPING_SECONDS = 15

#: Before the name of a keeper that is there for want of a better one.
STEPS_BACK = "watch/"

#: Messages of a queue that are read in one round trip.
LOOKED_AT_TOGETHER = 500

#: Keys of a job beside its hash.
JOB_PARTS = (
    *("stored", "begun", "leases", "owners", "attempts", "deaths", "trails", "results", "events"),
    *(f"done:{rung}" for rung in Rung),
)

#: Events of a job, and dead letters, that are kept; older ones are in the logs.
EVENTS_KEPT = 1000

DEAD_LETTERS = f"{KEY_PREFIX}dead"


SCRIPTS = (
    *("create", "claim", "renew", "release", "follow", "complete", "reopen", "expire"),
    *("resume", "cancel", "counted", "advance", "progress", "states", "to_front"),
)

#: What is to be done about a row that is not finite: run it again at the next rung, or stop.
OnInstability = Literal["retry", "fail"]

Field = str | int | float
Flags = npt.NDArray[np.bool_]


class Ledger:
    """The ledger of all jobs on one Redis."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        scripts = files("common.ledger") / "lua"
        self._scripts = {
            name: redis.register_script((scripts / f"{name}.lua").read_text()) for name in SCRIPTS
        }

    # --- jobs ---------------------------------------------------------------------------------

    def create(self, manifest: Manifest, queue: str, stored: Flags | None = None) -> bool:
        """Open a job; True if it was not there. A second call changes nothing.

        What is known of an earlier staging under this name is forgotten: its store is gone.

        Args:
            stored: the batches of which the store has a shard: they are not given out before
                ``set_counted``.
        """
        key = job_key(manifest.job)
        fields: dict[str, Field] = {
            "state": JobState.OPEN,
            "model": manifest.model,
            "queue": queue,
            "batches": manifest.batches,
            "records": manifest.report.records,
            "tokens": manifest.tokens,
        }
        keys = [f"{KEY_PREFIX}jobs", key, *(f"{key}:{part}" for part in JOB_PARTS)]
        bitmap = b"" if stored is None or not stored.any() else np.packbits(stored).tobytes()
        args: list[Field | bytes] = [manifest.job, manifest.created.timestamp(), bitmap]
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

    def jobs(self) -> list[str]:
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
            published=int(fields.get("published", 0)),
            waiting=max(0, int(waiting)),
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
        self._scripts["counted"](keys=[f"{job_key(job)}:stored"], args=indices)

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

    def leased(self, job: str) -> set[tuple[int, Rung]]:
        """Which batches, at which rung, somebody holds, or held until lately."""
        fields = cast(list[str], self.redis.zrange(f"{job_key(job)}:leases", 0, -1))
        return set(map(place_of, fields))

    def advance(self, manifest: Manifest, published: int) -> None:
        """Note that the first ``published`` of a job's batches have been sent to the queue."""
        args: list[Field] = [published, manifest.created.timestamp()]
        self._scripts["advance"](keys=[job_key(manifest.job)], args=args)

    def outstanding(self, manifest: Manifest, published: int | None = None) -> Iterator[Batch]:
        """Batches that have no result at a rung that is theirs, and no lease; those of higher rungs
        first.

        Args:
            published: leave out batches from this one on that are at their first rung.
        """
        leased = self.leased(manifest.job)
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
        results = self.results(manifest.job)
        settled = {(result.index, result.rung) for result in results}
        retries = [
            retry_of(manifest.batch(result.index), result) for result in results if result.next
        ]
        by_rung = {(retry.index, retry.rung): retry for retry in retries}
        return {place: retry for place, retry in by_rung.items() if place not in settled}

    def hold_staging(self, job: str, owner: str) -> bool:
        """Be the only one who stages a job, for ``STAGING_SECONDS`` from each call."""
        return self._hold(f"{job_key(job)}:staging", owner, STAGING_SECONDS)

    def release_staging(self, job: str, owner: str) -> None:
        """Let others stage a job, if it is still ``owner`` who does."""
        self._let_go(f"{job_key(job)}:staging", owner)

    def _hold(self, key: str, owner: str, seconds: int) -> bool:
        if self.redis.set(key, owner, nx=True, ex=seconds):
            return True
        if self.redis.get(key) != owner:
            return False
        self.redis.expire(key, seconds)
        return True

    def _let_go(self, key: str, owner: str) -> None:
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

    def trail(self, batch: Batch) -> CrashRecord:
        """What an earlier owner of a batch noted of it."""
        field = field_of(batch.index, batch.rung)
        text = cast(str | None, self.redis.hget(f"{job_key(batch.job)}:trails", field))
        return CrashRecord() if text is None else CrashRecord.model_validate_json(text)

    def follow(self, batch: Batch, trail: CrashRecord, *, owner: str) -> bool:
        """Note what ``owner`` is about to do with a batch; False if it is no longer theirs."""
        key, field = job_key(batch.job), field_of(batch.index, batch.rung)
        args: list[Field] = [field, owner, trail.model_dump_json()]
        return bool(self._scripts["follow"](keys=[f"{key}:owners", f"{key}:trails"], args=args))

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

    def expire_leases(self, job: str) -> list[tuple[int, Rung, str]]:
        """Take back the leases that ran out; the batches, at which rung, and who had them."""
        key = job_key(job)
        keys = [key, f"{key}:leases", f"{key}:owners", f"{key}:deaths"]
        flat = self._scripts["expire"](keys=keys)
        return sorted((*place_of(f), o) for f, o in zip(flat[::2], flat[1::2], strict=True))

    # --- events -------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Keep an event with its job."""
        self._keep(f"{job_key(event.job or '')}:events", event)

    def events(self, job: str, count: int = EVENTS_KEPT) -> list[Event]:
        """A job's latest events, newest first."""
        texts = self.redis.lrange(f"{job_key(job)}:events", 0, count - 1)
        return [Event.model_validate_json(text) for text in cast(list[str], texts)]

    def count_events(self, job: str) -> int:
        """A job's events that are kept."""
        return int(self.redis.llen(f"{job_key(job)}:events"))

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

    def may_forget(self) -> str | None:
        """The policy by which this Redis throws keys away when it is full; None if it does not."""
        memory = self.redis.info("memory")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        return policy if memory.get("maxmemory") and policy != "noeviction" else None

    # --- queues and workers -------------------------------------------------------------------

    def queued(self, queue: str) -> int:
        """Messages in a queue that no worker has taken."""
        return int(self.redis.llen(f"{KEY_PREFIX}{queue}"))

    def messages(self, queue: str) -> Iterator[bytes]:
        """The messages in a queue, oldest first; some may be missed while others are taken."""
        key, place = f"{KEY_PREFIX}{queue}", -1
        while items := self._raw("LRANGE", key, place - LOOKED_AT_TOGETHER + 1, place):
            yield from reversed(items)
            place -= LOOKED_AT_TOGETHER

    def messages_in_flight(self) -> list[bytes]:
        """What workers have taken from queues and not acknowledged, in Celery's form."""
        return self._raw("HVALS", f"{KEY_PREFIX}unacked")

    def _raw(self, *command: str | int) -> list[bytes]:
        return cast(list[bytes], self.redis.execute_command(*command, NEVER_DECODE=True))

    def to_front(self, queue: str, count: int) -> None:
        """Have the messages that were sent last be taken next."""
        self._scripts["to_front"](keys=[f"{KEY_PREFIX}{queue}"], args=[count])

    def hold_keeping(self, store: str, owner: str, *, steps_back: bool = False) -> bool:
        """Be the only one who keeps a store's jobs, for ``KEEPING_SECONDS`` from each call.

        Args:
            steps_back: whether others, who do not, may take over at once.
        """
        key = f"{KEY_PREFIX}keeper:{name_of(store)}"
        if steps_back:
            return self._hold(key, f"{STEPS_BACK}{owner}", KEEPING_SECONDS)
        if str(self.redis.get(key) or "").startswith(STEPS_BACK):
            self.redis.set(key, owner, ex=KEEPING_SECONDS)
        return self._hold(key, owner, KEEPING_SECONDS)

    def release_keeping(self, store: str, owner: str) -> None:
        for holder in (owner, f"{STEPS_BACK}{owner}"):
            self._let_go(f"{KEY_PREFIX}keeper:{name_of(store)}", holder)

    def is_new_to(self, store: str) -> bool:
        """Whether nobody has looked for a store's jobs since this Redis was empty."""
        return not self.redis.exists(f"{KEY_PREFIX}kept:{name_of(store)}")

    def set_known(self, store: str) -> None:
        self.redis.set(f"{KEY_PREFIX}kept:{name_of(store)}", store)

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


def name_of(store: str) -> str:
    return hashlib.sha256(store.encode()).hexdigest()[:16]


def job_key(job: str) -> str:
    return f"{KEY_PREFIX}job:{job}"


def done_key(of: Batch | BatchResult) -> str:
    return f"{job_key(of.job)}:done:{of.rung}"


def field_of(index: int, rung: Rung) -> str:
    return f"{index}.{rung}"


def place_of(field: str) -> tuple[int, Rung]:
    index, rung = field.split(".")
    return int(index), Rung(rung)


def counting(result: BatchResult, owner: str | None) -> dict[str, Any]:
    """Keys and arguments of the scripts that count a result, or take it back."""
    key, field = job_key(result.job), field_of(result.index, result.rung)
    keys = [key, done_key(result), f"{key}:leases", f"{key}:owners", f"{key}:results"]
    keys += [f"{key}:{part}" for part in ("attempts", "deaths", "trails", "begun")]
    poison = result.model_copy(update={"unstable": (), "next": None, "records": 0})
    args: list[Field] = [
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
        "" if result.previous_rung is None else field_of(result.index, result.previous_rung),
        result.next or "",
        int(result.stops_job),
        len(result.poisoned),
        poison.model_dump_json() if result.poisoned else "",
        "" if result.created is None else result.created,
    ]
    return {"keys": keys, "args": args}
