"""The speed of a real worker between a full queue and a store."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import cast

from common import __version__
from common.crc import crc32
from common.errors import UserError
from common.job.layout import input_key
from common.job.manifest import InputReport, Manifest, checksums_text, write_manifest
from common.job.output_form import OutputForm
from common.job.records import Record, encode_batch
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.local.fleet import LocalFleet, local_fleet
from common.local.processes import end_of_log
from common.model_source import ModelSource
from common.model_specs import ModelSpec
from common.rungs import PrecisionChoice, Rung
from common.settings import Settings
from common.store import Store, open_store
from common.wire.celery_app import make_celery, publish
from common.wire.queues import queue_name
from common.wire.redis_client import connect
from workers.bench.proteins import random_sequences
from workers.process.environment import TRACE_FILE

JOB = "bench"

#: Seconds without a first batch, and later without another one, after which a worker has failed.
START_SECONDS, STALL_SECONDS = 600.0, 180.0

#: Seconds between two looks at the ledger.
POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of a measurement."""

    source: ModelSource
    spec: ModelSpec
    rung: Rung
    form: OutputForm
    batches: int
    batch_tokens: int
    gpus: str
    gpu_memory: float | None

    @property
    def workers(self) -> int:
        return len(self.gpus.split(","))


@dataclass(frozen=True)
class FleetSpeed:
    """The speed of all workers while each of them had work."""

    start_seconds: float  # from the start of the workers to the first batch that one claimed
    tokens: int  # of the batches that were done in ``seconds``
    seconds: float  # between the moments when all workers were busy and when the queue was empty

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def measure_fleet(plan: Plan, store_folder: Path, trace_file: Path | None) -> FleetSpeed:
    """Fill a store and a queue, start a worker, and measure until the job finishes.

    Raises:
        UserError: a worker ended before the job was finished, or batches failed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virnucpro-")))
        store = open_store(stack.enter_context(tempfile.TemporaryDirectory(dir=store_folder)))
        store.check_writable()
        fleet = stack.enter_context(
            local_fleet(
                folder, store.url, gpus=plan.gpus, environment=environment_of(plan, trace_file)
            )
        )
        ledger = Ledger(connect(fleet.broker_url))
        fill_queue(plan, store, ledger, fleet.broker_url)
        started = time.perf_counter()
        memory = [] if plan.gpu_memory is None else [f"--gpu-memory={plan.gpu_memory}"]
        fleet.start_worker(plan.source.text, cast(PrecisionChoice, plan.rung.value), memory)
        return watch(ledger, fleet, started, plan)


def environment_of(plan: Plan, trace_file: Path | None) -> dict[str, str]:
    """Return what the workers' environment has that this process's has not.

    This process sees the first GPU alone, on which it has timed the model.
    """
    gpus = {"CUDA_VISIBLE_DEVICES": "" if plan.gpus == "none" else plan.gpus}
    return gpus if trace_file is None else gpus | {TRACE_FILE: str(trace_file.absolute())}


def fill_queue(plan: Plan, store: Store, ledger: Ledger, broker_url: str) -> None:
    """Create a job of random records and publish its batches."""
    records = random_records(plan.spec)
    sizes, checksums = [], []
    for index in range(plan.batches):
        batch = list(take_tokens(records, plan.spec, plan.batch_tokens))
        data = encode_batch(batch)
        store.put(input_key(JOB, index), data)
        checksums.append(crc32(data))
        sizes.append((len(batch), sum(plan.spec.tokens(len(record.residues)) for record in batch)))
    manifest = Manifest(
        package=__version__,
        job=JOB,
        created=datetime.now(UTC),
        input="random",
        fingerprint="",
        model=plan.source.text,
        alphabet=plan.spec.family.alphabet.name,
        rung=plan.rung,
        form=plan.form,
        report=InputReport(
            records=sum(records for records, _ in sizes),
            residues=0,
            long=0,
            skipped=0,
            replaced=0,
            duplicate_ids=0,
        ),
        batch_records=[records for records, _ in sizes],
        batch_tokens=[tokens for _, tokens in sizes],
        input_crc32=checksums_text(checksums),
    )
    write_manifest(store, manifest)
    queue = queue_name(plan.source, plan.rung, plan.rung)
    ledger.jobs.create(manifest, queue)
    # The worker inherits this process's environment, and with it the key.
    app = make_celery(broker_url, [queue], Settings.read().message_keys())
    publish(app, plan.source, ledger.batches.outstanding(manifest))


def random_records(spec: ModelSpec) -> Iterator[Record]:
    sequences = random_sequences(spec.family.alphabet, spec.family.max_residues)
    return (Record(row, f"s{row}", residues) for row, residues in zip(count(), sequences))


def take_tokens(records: Iterator[Record], spec: ModelSpec, tokens: int) -> Iterator[Record]:
    """Yield records until they reach a number of tokens."""
    while tokens > 0:
        (record,) = islice(records, 1)
        tokens -= spec.tokens(len(record.residues))
        yield record


def watch(ledger: Ledger, fleet: LocalFleet, started: float, plan: Plan) -> FleetSpeed:
    """Poll the ledger until the job finishes."""
    first_claim: float | None = None
    busy = BusyPeriod(plan.workers)
    done, done_at = 0, started
    while True:
        progress, now = ledger.jobs.progress(JOB), time.perf_counter()
        assert progress is not None
        if progress.batches_done > done:
            done, done_at = progress.batches_done, now
        fleet.check(plan.source.text)
        check_not_stalled(fleet, now - done_at, START_SECONDS if done == 0 else STALL_SECONDS)
        if first_claim is None and (progress.leased or progress.batches_done):
            first_claim = now - started
        busy.add(now, progress, ledger)
        if progress.finished and first_claim is not None:
            check_all_done(progress)
            return FleetSpeed(first_claim, *busy.tokens_and_seconds())
        time.sleep(POLL_SECONDS)


def check_not_stalled(fleet: LocalFleet, idle: float, limit: float) -> None:
    if idle > limit:
        raise UserError(f"No batch was done for {limit:.0f} seconds:\n{end_of_log(fleet.log)}")


class BusyPeriod:
    """The counts of the ledger while all workers were busy and batches were queued."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.done_when_ready: int | None = None
        self.seen: list[tuple[float, int]] = []  # time and tokens done, whenever they increased

    def add(self, now: float, progress: Progress, ledger: Ledger) -> None:
        if self.done_when_ready is None:
            ready = sum(worker.weights is not None for worker in ledger.workers.all())
            if ready < self.workers:
                return
            self.done_when_ready = progress.batches_done
        # Since the last worker was ready, each of them has done a batch.
        all_busy = progress.batches_done > self.done_when_ready + self.workers
        waiting = progress.batches - progress.batches_done - progress.leased
        tokens = progress.tokens_done
        if all_busy and waiting > 0 and (not self.seen or tokens > self.seen[-1][1]):
            self.seen.append((now, tokens))

    def tokens_and_seconds(self) -> tuple[int, float]:
        if len(self.seen) < 2:
            raise UserError("The job was done before all workers were busy: give more --seconds.")
        (start, before), (end, after) = self.seen[0], self.seen[-1]
        return after - before, end - start


def check_all_done(progress: Progress) -> None:
    if progress.rows_done < progress.records:
        lost = progress.records - progress.rows_done
        raise UserError(f"{lost:,} of {progress.records:,} sequences have no embedding.")
