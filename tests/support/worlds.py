"""Everything that a worker needs for an open job, with an engine that returns random numbers."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

from redis.exceptions import ConnectionError as RedisConnectionError

from common.embeddings.arrays import Embeddings
from common.embeddings.reader import read_embeddings
from common.embeddings.shards import open_shard
from common.job.layout import shard_key
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.claims import ClaimOutcome, ClaimResult, ReleaseReason
from common.ledger.events import Event
from common.ledger.keys import batch_field, job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.ledger.workers import WorkerInfo
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import PRECISION_CODES, Rung
from common.wire.messages import Batch, BatchResult, Instability, NonFinite, Status
from tests.support.jobs import TOKENS_PER_RECORD
from tests.support.ledgers import everything
from tests.support.shards import embeddings_of
from tests.support.troubled_store import TroubledStore
from workers.batches.lease import Lease
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.retry_policy import MAX_ATTEMPTS
from workers.batches.runner import BatchRunner
from workers.engine.engine import Outcome
from workers.engine.flight import PackDone
from workers.process.worker import exit_device_lost

FP16, SELECTIVE, FP32 = Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32

BATCH_RECORDS = [4, 2]
ROWS = [[0, 1, 2, 3], [4, 5]]
RECORDS = [Record(row, f"id{row} words", "MKVLGASTLL") for row in range(6)]

WORKER = WorkerInfo(
    name="a", model="m", weights="w", device="CPU", precision=FP16, queues=("m.fp16",)
)

#: Rows that are not finite, and in which precisions.
NEVER = (FP16, SELECTIVE, FP32)
BadRows = Mapping[int, Sequence[Rung]]


def saw(precision: Rung, row: int) -> NonFinite:
    """Return a precision's description of a row, different for each precision."""
    return NonFinite(nan=1 + row, inf=PRECISION_CODES[precision], finite_min=None, finite_max=None)


def nothing() -> None:
    pass


@dataclass
class FakeEngine:
    """An engine that returns random numbers, and records its calls."""

    bad: BadRows = field(default_factory=dict)
    precision: Rung = FP16
    during: Callable[[], None] = nothing  # called in the middle of a batch
    calls: list[tuple[Rung, list[int]]] = field(default_factory=list)
    loaded: Any = field(
        default_factory=lambda: SimpleNamespace(
            source=ModelSource.parse("random:esm2_t6_8M_UR50D"),
            fingerprint="w",
            model_digest=None,
            spec=MODELS["esm2_t6_8M_UR50D"],
            origins={},
        )
    )

    def embed(
        self,
        records: Sequence[Record],
        form: OutputForm,
        *,
        rung: Rung,
        between_packs: Callable[[], None],
        on_pack: Callable[[PackDone], None],
    ) -> Outcome:
        precision = FP32 if self.precision is FP32 else rung
        self.calls.append((rung, [record.row for record in records]))
        on_pack(PackDone(tokens=50, room=64, seconds=0.25, batch_tokens=100, batch_done=50))
        self.during()
        between_packs()
        without = {record.row for record in records if precision in self.bad.get(record.row, ())}
        kept = [record for record in records if record.row not in without]
        return Outcome(
            embeddings=embeddings_of(kept, form, self.loaded.spec.dim, precision=precision),
            unstable=tuple(
                Instability(
                    row=record.row,
                    id=record.id,
                    length=len(record.residues),
                    seen={precision: saw(precision, record.row)},
                )
                for record in records
                if record.row in without
            ),
            precision=precision,
            tokens=TOKENS_PER_RECORD * len(kept),
            seconds=0.25,
        )


class Impatient(threading.Event):
    """An event whose ``wait`` returns at once and records the seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return self.is_set()


class Runner(BatchRunner):
    """A runner whose pauses take no time."""

    stopping: Impatient

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts, stopping=Impatient())


class LateRenewer(LeaseRenewer):
    """A renewer of batches that take so long that their leases may have expired."""

    def add(self, lease: Lease) -> None:
        super().add(lease)
        lease.renewed_at = -math.inf


@dataclass
class World:
    """An open job, and everything that a worker needs for it."""

    ledger: Ledger
    store: TroubledStore
    manifest: Manifest
    published: list[Batch] = field(default_factory=list)

    def runner(self, engine: FakeEngine | None = None, **parts: Any) -> Runner:
        defaults = {
            "store": self.store,
            "ledger": self.ledger,
            "engine": engine or FakeEngine(),
            "renewer": LateRenewer(self.ledger, WORKER),  # not started
            "publish": self.published.append,
            "publish_next": self.published.append,
            "on_device_lost": exit_device_lost,
            "name": "a",
        }
        return Runner(**(defaults | parts))

    @property
    def job(self) -> str:
        return self.manifest.job

    @property
    def progress(self) -> Progress:
        progress = self.ledger.jobs.progress(self.job)
        assert progress is not None
        return progress

    @property
    def events(self) -> list[Event]:
        """Return the job's events, oldest first."""
        return self.ledger.events.latest(self.job)[::-1]

    @property
    def results(self) -> list[BatchResult]:
        return self.ledger.results.all(self.job)

    def outstanding(self) -> list[Batch]:
        return list(self.ledger.batches.outstanding(self.manifest))

    def shard(self, index: int, rung: Rung = FP16) -> Embeddings:
        spec = FakeEngine().loaded.spec
        with open_shard(self.store, shard_key(self.job, index, rung)) as shard:
            return read_embeddings(shard.file, self.manifest.form, spec.dim)

    def shards(self) -> list[str]:
        return list(self.store.keys(f"{self.job}/output/"))

    def lapse(self, batch: Batch) -> None:
        """Make the lease of a batch expire now."""
        leases = f"{job_key(batch.job)}:leases"
        self.ledger.redis.zadd(leases, {batch_field(batch.index, batch.rung): 1})

    def take_over(self, batch: Batch) -> None:
        """Claim a batch for another worker."""
        self.lapse(batch)
        self.ledger.leases.expire(batch.job)
        self.claim(batch)

    def claim(self, batch: Batch, owner: str = "other") -> ClaimResult:
        attempt = self.ledger.leases.claim(batch, owner=owner, weights="w")
        assert attempt.outcome is ClaimOutcome.TAKEN
        return attempt

    def crash(self, batch: Batch, times: int) -> None:
        """Make a batch crash this many processes."""
        for _ in range(times):
            self.claim(batch)
            self.ledger.leases.release(batch, owner="other", reason=ReleaseReason.CRASHED)

    def use_up_attempts(self, batch: Batch) -> None:
        """Use up all attempts at a batch but one."""
        for number in range(1, MAX_ATTEMPTS):
            assert self.claim(batch).attempts == number
            self.ledger.leases.release(batch, owner="other")


def run_first_rung(world: World, engine: FakeEngine) -> Batch:
    """Run the first batch, with rows that are not finite; return the message of its retry."""
    world.runner(engine).run(world.manifest.batch(0))
    engine.calls.clear()
    world.store.written.clear()
    return world.published.pop()


def refuse_times(times: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that Redis refuses this many times before it succeeds."""
    left = times

    def maybe(*args: object, **options: object) -> Any:
        nonlocal left
        if left:
            left -= 1
            refuse()
        return call(*args, **options)

    return maybe


def refuse(*_: object, **__: object) -> NoReturn:
    raise RedisConnectionError("gone")


def failure(world: World, batch: Batch, engine: FakeEngine | None = None) -> str:
    """Return the error of a failed batch, and check that nothing is left of it."""
    world.runner(engine).run(batch)
    (result,) = world.results
    assert (result.status, result.records, result.unstable) == (Status.FAILED, 0, ())
    assert (result.next, result.stops_job, result.previous_rung) == (
        None,
        False,
        batch.previous_rung,
    )
    assert world.published == []
    assert world.progress.batches_failed == 1
    assert world.progress.leased == 0
    assert result.error is not None
    return result.error


def failing(error: Exception) -> FakeEngine:
    def fail() -> NoReturn:
        raise error

    return FakeEngine(during=fail)


class EndedError(BaseException):
    """The end of the process."""


def state_of(world: World) -> dict[str, bytes]:
    """Return the content of Redis."""
    return everything(world.ledger)
