"""How a job was computed: its batches, rungs, workers, and what went wrong."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from typing import NamedTuple

import numpy as np
from redis.exceptions import RedisError

from common.bounded_map import bounded_map
from common.embeddings.arrays import Array
from common.embeddings.checksums import DamagedError
from common.embeddings.seal import Label
from common.embeddings.shards import read_label
from common.errors import UserError
from common.job.manifest import Manifest
from common.ledger.events import Event
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.rungs import Rung
from common.store import ObjectNotFoundError, Store
from common.text import counted, one_line
from common.wire.messages import Instability
from producer.report.contents import (
    Incident,
    Ladder,
    Run,
    Timeline,
    Unstable,
    Worker,
)
from producer.report.rows import cut, histogram_of

#: Bins of time, and the workers that are shown one by one.
BINS, WORKERS_SHOWN = 120, 12

#: Seconds that a batch takes at least: the clock of a worker may have been set back meanwhile.
LEAST_SECONDS = 1e-3

#: Rows without an embedding, and events, that a report lists.
UNSTABLE_SHOWN, EVENTS_SHOWN = 100, 100

#: Characters of an error of Redis that a report shows.
REASON_SHOWN = 200


class Work(NamedTuple):
    """A batch that a worker computed."""

    began: float  # seconds since the epoch
    ended: float
    tokens: int
    device_seconds: float


@dataclass(frozen=True)
class Told:
    """What the ledger told of a job."""

    progress: Progress | None = None
    incidents: tuple[Incident, ...] = ()
    why_not: str = ""  # it told nothing


def read_labels(store: Store, keys: Sequence[str]) -> list[Label]:
    """Return the labels of shards; those that cannot be read, or are gone, are left out."""

    def read(key: str) -> Label | None:
        try:
            return read_label(store, key)
        except (DamagedError, ObjectNotFoundError):
            return None

    return [label for label in bounded_map(read, keys, store.parallel_reads) if label is not None]


def run_of(
    manifest: Manifest,
    labels: Sequence[Label],
    quarantined: Sequence[Instability],
    ledger: Told,
) -> Run:
    """Return how a job was computed.

    Args:
        labels: of the shards that there are.
        quarantined: the rows without an embedding.
        ledger: what the ledger told.
    """
    tokens = histogram_of(Counter(manifest.batch_tokens))
    assert tokens is not None  # a job has a batch
    progress = ledger.progress
    return Run(
        batch_tokens=tokens,
        ladder=ladder_of(labels),
        timeline=timeline_of(labels),
        unstable=len(quarantined),
        unstable_shown=tuple(map(unstable_of, quarantined[:UNSTABLE_SHOWN])),
        no_ledger=ledger.why_not,
        leases_lost=progress.leases_lost if progress else 0,
        rows_retried=rows_retried(manifest, labels, quarantined),
        incidents=ledger.incidents,
    )


def ladder_of(labels: Iterable[Label]) -> tuple[Ladder, ...]:
    """Return what was computed at each rung that was used."""
    by_rung: dict[Rung, list[Label]] = defaultdict(list)
    for label in labels:
        by_rung[label.rung].append(label)
    return tuple(
        Ladder(
            rung=rung.value,
            shards=len(by_rung[rung]),
            rows=sum(label.records for label in by_rung[rung]),
            tokens=sum(label.tokens for label in by_rung[rung]),
        )
        for rung in Rung
        if rung in by_rung
    )


def rows_retried(
    manifest: Manifest, labels: Iterable[Label], quarantined: Iterable[Instability]
) -> int:
    """Return how many rows were computed at a second rung: embedded there, or not even there."""
    embedded = sum(label.records for label in labels if label.rung is not manifest.rung)
    return embedded + sum(len(row.seen) > 1 for row in quarantined)


def unstable_of(found: Instability) -> Unstable:
    seen = [f"{rung}: {values}" for rung, values in found.seen.items()]
    why = "; ".join([*seen, *([found.reason] if found.reason else [])])
    return Unstable(found.row, cut(found.id), found.length, why or "not finite")


def timeline_of(labels: Sequence[Label], bins: int = BINS) -> Timeline | None:
    """Return the throughput of each worker; None if no shard records who computed it."""
    by_worker: dict[str, list[Work]] = defaultdict(list)
    for label in labels:
        if (found := label.computed) is not None:
            ended = max(found.ended, found.began + LEAST_SECONDS)
            work = Work(found.began, ended, label.tokens, found.device_seconds)
            by_worker[found.worker].append(work)
    if not by_worker:
        return None
    names = sorted(by_worker, key=lambda name: (-tokens_of(by_worker[name]), name))
    groups = {name: by_worker[name] for name in names[:WORKERS_SHOWN]}
    if others := names[WORKERS_SHOWN:]:
        groups[counted(len(others), "other")] = [w for name in others for w in by_worker[name]]
    all_work = [work for group in groups.values() for work in group]
    edges = np.linspace(
        min(work.began for work in all_work), max(work.ended for work in all_work), bins + 1
    )
    workers = tuple(
        Worker(
            name=name,
            batches=len(group),
            tokens=tokens_of(group),
            device_seconds=sum(work.device_seconds for work in group),
            rates=rates_of(group, edges),
        )
        for name, group in groups.items()
    )
    return Timeline(edges, workers, len(labels), len(all_work))


def tokens_of(group: Iterable[Work]) -> int:
    return sum(work.tokens for work in group)


def rates_of(group: Sequence[Work], edges: Array) -> Array:
    """Return tokens per second in each bin of time, of batches that are spread evenly."""
    rates = np.zeros(len(edges) - 1)
    for began, ended, tokens, _ in group:
        overlap = np.minimum(ended, edges[1:]) - np.maximum(began, edges[:-1])
        rates += np.maximum(overlap, 0) * (tokens / (ended - began))
    return rates / np.diff(edges)


def ask_ledger(connected: Callable[[], Ledger], job: str) -> Told:
    """Return what the ledger tells of a job: a report does without it.

    Args:
        connected: returns the ledger, or raises UserError if Redis cannot be used.
    """
    try:
        ledger = connected()
        progress = ledger.jobs.progress(job)
        events = ledger.events.latest(job, EVENTS_SHOWN)
    except (UserError, RedisError) as error:
        return Told(why_not=f"Redis was not reached ({first_line(error)})")
    if progress is None:
        return Told(why_not="Redis no longer knows this job")
    return Told(progress, tuple(map(incident_of, events)))


def first_line(error: Exception) -> str:
    return cut(one_line(str(error).partition("\n")[0].rstrip(".")), REASON_SHOWN)


def incident_of(event: Event) -> Incident:
    return Incident(
        time="" if isnan(event.time) else time_text(event.time),
        event=event.event.value.replace("_", " "),
        batch="" if event.batch is None else str(event.batch),
        rung=event.rung or "",
        worker=event.worker or "",
        detail=event.detail,
    )


def time_text(seconds: float) -> str:
    """Return a time as ``2026-01-31 12:00:00 UTC``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
