"""What ``--json`` prints. ``docs/formats.md`` describes each of these documents.

Fields may be added, never renamed or removed. Times are RFC 3339 in UTC, durations are seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer

from common.job.manifest import Manifest
from common.ledger.events import Event
from common.ledger.progress import Progress
from common.ledger.workers import CurrentBatch, WorkerInfo
from common.rungs import NEXT_RUNG, Rung
from common.wire.dead_letters import DeadLetter
from common.wire.messages import Instability
from producer.scheduling.deletion import Size
from producer.scheduling.observation import Observation


def rfc3339(time: datetime) -> str:
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


Time = Annotated[datetime, PlainSerializer(rfc3339, when_used="json")]


def time_of(seconds: float | None) -> datetime | None:
    """Return the time of seconds since the epoch; None for what is none."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class Printed(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(frozen=True)

    def text(self) -> str:
        """Return the document as JSON in one line."""
        return self.model_dump_json()


class PrintedJob(Printed):
    """A job, as in a list of jobs."""

    job: str
    state: str
    priority: str
    model: str
    weights: str | None
    owner: str | None
    input: str | None
    submitted: Time | None
    started: Time | None
    ended: Time | None
    expires: Time | None
    elapsed_seconds: float | None
    eta_seconds: float | None
    tokens_per_second: float | None
    device_seconds: float
    batches: int
    batches_done: int
    batches_running: int
    batches_failed: int
    batches_requeued: int
    sequences: int
    sequences_done: int
    sequences_identical: int
    sequences_retried: int
    sequences_quarantined: int
    tokens: int
    tokens_done: int
    objects: int | None
    bytes: int | None

    @classmethod
    def fields_of(
        cls, job: Progress, keep: timedelta | None, size: Size | None = None
    ) -> dict[str, object]:
        return {
            "job": job.job,
            "state": job.status,
            "priority": job.priority,
            "model": job.model,
            "weights": job.weights,
            "owner": job.owner,
            "input": job.input,
            "submitted": time_of(job.created),
            "started": time_of(job.started),
            "ended": time_of(job.ended),
            "expires": time_of(job.expires(keep)),
            "elapsed_seconds": job.elapsed,
            "eta_seconds": job.eta,
            "tokens_per_second": job.tokens_per_second,
            "device_seconds": job.device_seconds,
            "batches": job.batches,
            "batches_done": job.batches_done,
            "batches_running": job.leased,
            "batches_failed": job.batches_failed,
            "batches_requeued": job.leases_lost,
            "sequences": job.records,
            "sequences_done": job.rows_done,
            "sequences_identical": job.identical,
            "sequences_retried": job.rows_retried,
            "sequences_quarantined": job.rows_quarantined,
            "tokens": job.tokens,
            "tokens_done": job.tokens_done,
            "objects": None if size is None else size.objects,
            "bytes": None if size is None else size.bytes,
        }

    @classmethod
    def of(
        cls, job: Progress, keep: timedelta | None = None, size: Size | None = None
    ) -> "PrintedJob":
        return cls.model_validate(cls.fields_of(job, keep, size))


class PrintedRung(Printed):
    """A rung of a job's ladder."""

    rung: Rung
    queue: str
    queued: int
    batches: int
    sequences_embedded: int
    sequences_not_finite: int
    retried_at: Rung | None


class PrintedEvent(Printed):
    """An event of a job."""

    time: Time | None
    event: str
    batch: int | None
    rung: Rung | None
    worker: str | None
    detail: str

    @classmethod
    def of(cls, event: Event) -> "PrintedEvent":
        fields = event.model_dump(include=set(cls.model_fields) - {"time"})
        return cls.model_validate({**fields, "time": time_of(event.time)})


class PrintedWorker(Printed):
    """A worker process."""

    name: str
    model: str
    weights: str | None
    model_digest: str | None
    device: str
    precision: Rung
    queues: tuple[str, ...]
    takes: bool
    host: str | None
    pid: int | None
    started: Time | None
    stage: str | None
    attention: str | None
    tokens_per_second: float | None
    busy: float | None
    memory_used: int | None
    memory_total: int | None
    current: tuple[CurrentBatch, ...]

    @classmethod
    def of(cls, worker: WorkerInfo) -> "PrintedWorker":
        fields = worker.model_dump(include=set(cls.model_fields) - {"started"})
        return cls.model_validate({**fields, "started": time_of(worker.started)})


class JobList(Printed):
    """The document of ``producer jobs``."""

    jobs: tuple[PrintedJob, ...]
    unreadable: tuple[str, ...]


class FleetStatus(Printed):
    """The document of ``producer status``."""

    workers: tuple[PrintedWorker, ...]
    jobs: tuple[PrintedJob, ...]
    dead_letters: int
    unreadable: tuple[str, ...]


class JobStatus(PrintedJob):
    """The document of ``producer status JOB``."""

    waits: str | None
    rungs: tuple[PrintedRung, ...]
    precisions: dict[str, int]
    workers: tuple[PrintedWorker, ...]
    problems: tuple[str, ...]
    events: tuple[PrintedEvent, ...]
    unreadable: tuple[str, ...]

    @classmethod
    def of_job(
        cls,
        job: Progress,
        keep: timedelta | None,
        *,
        queued: Mapping[Rung, int],
        waits: str,
        workers: Iterable[WorkerInfo],
        problems: Sequence[str],
        events: Iterable[Event],
        unreadable: Iterable[object],
    ) -> "JobStatus":
        return cls.model_validate(
            {
                **cls.fields_of(job, keep),
                "waits": waits or None,
                "rungs": [rung_of(job, rung, queued[rung]) for rung in job.queues],
                "precisions": job.rows_by_precision,
                "workers": list(map(PrintedWorker.of, workers)),
                "problems": problems,
                "events": list(map(PrintedEvent.of, events)),
                "unreadable": [str(reason) for reason in unreadable],
            }
        )


def rung_of(job: Progress, rung: Rung, queued: int) -> PrintedRung:
    return PrintedRung(
        rung=rung,
        queue=job.queues[rung],
        queued=queued,
        batches=job.batches_at(rung),
        sequences_embedded=job.embedded_at(rung),
        sequences_not_finite=job.unstable_at(rung),
        retried_at=NEXT_RUNG[rung],
    )


class JointStatus(Printed):
    """The document of ``producer status JOB`` of a joint job."""

    job: str
    jobs: tuple[JobStatus, ...]  # of each model


class WatchLine(Printed):
    """A line of ``producer watch``."""

    time: Time
    job: str
    state: str | None
    batches: int | None
    batches_done: int | None
    batches_running: int | None
    batches_failed: int | None
    sequences: int | None
    sequences_done: int | None
    sequences_identical: int | None
    sequences_quarantined: int | None
    tokens: int | None
    tokens_done: int | None
    tokens_running: int | None
    tokens_per_second: float | None
    eta_seconds: float | None
    workers: int
    waits: str | None

    @classmethod
    def of(cls, job: str, seen: Observation, waits: str) -> "WatchLine":
        """Return the line of a look at a job, which Redis may not know at this moment."""
        names = set(PrintedJob.model_fields) & set(cls.model_fields)
        known = {} if seen.progress is None else PrintedJob.fields_of(seen.progress, None)
        speed = seen.tokens_per_second
        left = None
        if speed and seen.progress is not None and seen.progress.eta is not None:
            done = seen.progress.tokens_done + seen.running_tokens
            left = max(0, seen.progress.tokens - done) / speed
        return cls.model_validate(
            {
                **{name: known.get(name) for name in names},
                "time": datetime.now(UTC),
                "job": job,
                "tokens_running": None if seen.progress is None else seen.running_tokens,
                "tokens_per_second": speed,
                "eta_seconds": left,
                "workers": len(seen.workers),
                "waits": (seen.trouble or waits) or None,
            }
        )


class QuarantineList(Printed):
    """The document of ``producer quarantine JOB``."""

    job: str
    sequences: tuple[Instability, ...]


class Verification(Printed):
    """The document of ``producer verify JOB``."""

    job: str
    batches: int
    intact: bool
    problems: tuple[str, ...]

    @classmethod
    def of(cls, manifest: Manifest, problems: Sequence[str]) -> "Verification":
        return cls(
            job=manifest.job,
            batches=manifest.batches,
            intact=not problems,
            problems=tuple(problems),
        )


class PrintedLetter(Printed):
    """A message that no worker could process."""

    time: Time | None
    queue: str
    worker: str
    reason: str
    message: str

    @classmethod
    def of(cls, letter: DeadLetter) -> "PrintedLetter":
        fields = letter.model_dump(exclude={"time"})
        return cls.model_validate({**fields, "time": time_of(letter.time)})


class DeadLetterList(Printed):
    """The document of ``producer dead-letters``."""

    dead_letters: tuple[PrintedLetter, ...]
