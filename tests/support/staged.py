"""A small staged job with a store, a ledger and queues, and the actions of its workers."""

from collections.abc import Iterable, Sequence
from itertools import islice

from celery import Celery
from redis import Redis

from common.alphabet import SPECIAL_TOKENS
from common.job.layout import shard_key
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.ledger.claims import ClaimOutcome
from common.ledger.keys import batch_field, job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import OnInstability, Progress
from common.rungs import Rung
from common.store import FileStore
from common.wire.messages import Batch, BatchResult, Instability, NonFinite
from common.wire.queues import KEY_PREFIX, Queues
from producer.scheduling.opening import open_job
from producer.scheduling.publisher import Publisher
from tests.support.jobs import manifest_of, ok, unstable
from tests.support.messages import body_of
from tests.support.shards import store_inputs, store_shard

MAX_RESIDUES = 5
BATCH_RECORDS = [3, 1, 3]

#: Rows 2 and 5 were skipped by the reader; row 4 is longer than the limit.
RECORDS = [
    Record(row, f"id{row} some words", "MKVLGAST"[:length])
    for row, length in zip([0, 1, 3, 4, 6, 7, 8], [3, 1, 5, 8, 2, 4, 5], strict=True)
]

SAW = {
    rung: NonFinite(nan=number, inf=0, finite_min=None, finite_max=None)
    for number, rung in enumerate(Rung)
}


def bad(record: Record, *seen: Rung) -> Instability:
    """Return the description of a row that is not finite."""
    length = min(len(record.residues), MAX_RESIDUES)
    return Instability(row=record.row, id=record.id, length=length, seen={r: SAW[r] for r in seen})


def tokens_of(records: Iterable[Record]) -> int:
    return sum(min(len(record.residues), MAX_RESIDUES) + SPECIAL_TOKENS for record in records)


class Job:
    """A staged job with its store, ledger and queues."""

    def __init__(
        self,
        store: FileStore,
        ledger: Ledger,
        app: Celery,
        *,
        first: Rung = Rung.FP16,
        high_water: int = 1000,
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.app = app
        self.publisher = Publisher(ledger, app, high_water)
        self.manifest = manifest_of(
            BATCH_RECORDS, form=OutputForm(max_residues=MAX_RESIDUES), rung=first
        )
        store_inputs(store, self.manifest, RECORDS)
        rest = iter(RECORDS)
        self.batches = [list(islice(rest, size)) for size in BATCH_RECORDS]

    @property
    def name(self) -> str:
        return self.manifest.job

    @property
    def progress(self) -> Progress:
        progress = self.ledger.jobs.progress(self.name)
        assert progress is not None
        return progress

    def open(self, on_instability: OnInstability = "retry") -> int:
        return open_job(self.store, self.ledger, self.publisher, self.manifest, on_instability)

    def queued(self) -> dict[str, int]:
        """Return the number of messages in each queue of the job that has any."""
        counts = {
            str(rung): Queues(self.ledger.redis).length(queue)
            for rung, queue in self.progress.queues.items()
        }
        return {rung: count for rung, count in counts.items() if count}

    def outstanding(self) -> list[tuple[int, Rung]]:
        found = self.ledger.batches.outstanding(self.manifest)
        return [(batch.index, batch.rung) for batch in found]

    def shard(
        self, index: int, rung: Rung = Rung.FP16, rows: Sequence[int] | None = None, **options
    ) -> str:
        """Write a batch's shard at a rung, with all of its rows or some; return its key."""
        store_shard(self.store, self.manifest, index, rung=rung, rows=rows, **options)
        return shard_key(self.name, index, rung)

    def quarantine(self, index: int, rows: Iterable[Instability]) -> None:
        quarantine = Quarantine(job=self.name, batch=index, rows=tuple(rows))
        add_to_quarantine(self.store, quarantine)

    def damage(self, key: str, keep: int = 1000) -> None:
        path = self.store.root / key
        path.write_bytes(path.read_bytes()[:keep])

    def work(self, *rows: int) -> None:
        """Compute all outstanding batches as workers do; these rows are never finite."""
        for batch in list(self.ledger.batches.outstanding(self.manifest)):
            self.compute(batch, rows)

    def compute(self, batch: Batch, never_finite: Sequence[int] = ()) -> BatchResult:
        """Compute a batch in which some rows are not finite."""
        asked = [
            record for record in self.batches[batch.index] if record.row in self.rows_of(batch)
        ]
        kept = [record for record in asked if record.row not in never_finite]
        rows = [record.row for record in kept]
        without = [bad(record, batch.rung) for record in asked if record.row in never_finite]
        self.shard(batch.index, batch.rung, rows)
        result = unstable(batch, *[row.row for row in without]) if without else ok(batch)
        update = {"unstable": tuple(without), "tokens": tokens_of(kept)}
        result = result.model_copy(update=update)
        if result.quarantined:
            self.quarantine(batch.index, result.quarantined)
        assert self.ledger.results.complete(result)
        return result

    def rows_of(self, batch: Batch) -> list[int]:
        if batch.previous_rung is None:
            return [record.row for record in self.batches[batch.index]]
        before = self.ledger.results.get(self.name, batch.index, batch.previous_rung)
        assert before is not None
        return [row.row for row in before.unstable]

    def claim(self, batch: Batch, owner: str = "a") -> ClaimOutcome:
        return self.ledger.leases.claim(batch, owner=owner, weights="w").outcome

    def take_all_messages(self) -> None:
        """Take all messages, as workers do that are killed before they claim a batch."""
        for queue in self.progress.queues.values():
            self.ledger.redis.delete(f"{KEY_PREFIX}{queue}")

    def lapse(self, batch: Batch) -> None:
        """Make a lease expire now."""
        field = batch_field(batch.index, batch.rung)
        self.ledger.redis.zadd(f"{job_key(self.name)}:leases", {field: 1})


def messages(redis: Redis, queue: str) -> list[Batch]:
    """Return the batches in a queue, in the order in which they will be taken."""
    texts = redis.lrange(f"{KEY_PREFIX}{queue}", 0, -1)[::-1]
    return [Batch(**body_of(text)[1]) for text in texts]
