"""Changing the priority of a job that is under way.

Its manifest, which is written once, has the priority that it was submitted with. The one of now is
part of the name of the job's queue in the ledger, which all that publish its batches follow; a copy
in the store survives if Redis is emptied. Messages that wait elsewhere are moved, by the command
and by keepers: a worker that began a batch before the change publishes its retry to another queue.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

from common.errors import JobEndedError, UserError
from common.job.manifest import Manifest
from common.ledger.keys import job_key
from common.ledger.ledger import Ledger
from common.ledger.progress import Progress
from common.ledger.workers import WorkerInfo
from common.rungs import Rung, ladder
from common.store import Store
from common.wire.celery_app import written
from common.wire.messages import Batch, Priority
from common.wire.queues import Queues, priority_of, queue_name
from common.wire.signing import MessageKeys
from producer.scheduling.lost_messages import LOOK_SECONDS, LOOK_SHARE, BatchKey, batch_key_of
from producer.scheduling.opening import job_queue, model_of, submitted_again
from producer.scheduling.publisher import Publisher
from producer.scheduling.stored_priority import store_priority

#: Messages moved in one call of Redis, which does nothing else meanwhile: for each it may look
#: through a whole queue, some milliseconds for 20,000 messages.
MOVED_TOGETHER = 10


def set_priority(
    store: Store,
    ledger: Ledger,
    publisher: Publisher,
    manifest: Manifest,
    progress: Progress,
    priority: Priority,
) -> int:
    """Give a job another priority: its batches to come, and those that wait in the queues.

    It may be interrupted anywhere, and run by several at once: the last one's priority holds, no
    batch is lost, and a keeper moves the messages that are left.

    Returns:
        Number of messages moved.

    Raises:
        JobEndedError: the job is finished.
        UserError: workers would refuse what this process signs.
    """
    if progress.finished:
        raise JobEndedError(f"Job {manifest.job} is finished: nothing of it is left to do.")
    manifest = manifest.with_priority(priority)
    if not can_sign_for(ledger.workers.all(), progress, publisher):
        raise UserError(
            f"The messages of {manifest.job} are signed with another key, and workers would refuse "
            "those that are written here. Set the VIRNUCPRO_MESSAGE_KEY of its workers, and run "
            "the command again."
        )
    if not ledger.jobs.set_queue(manifest, job_queue(manifest)):
        raise submitted_again(manifest)
    store_priority(store, ledger, manifest)
    return gather(ledger, publisher, manifest)


def can_sign_for(workers: Sequence[WorkerInfo], progress: Progress, publisher: Publisher) -> bool:
    """Return whether workers of a job would accept messages that a publisher writes."""
    if any(progress.queue in worker.queues for worker in workers):
        return would_accept(workers, progress.queue, publisher.signs_with)
    return progress.signed_with in (None, "", publisher.signs_with)


def would_accept(workers: Iterable[WorkerInfo], queue: str, signed_with: str) -> bool:
    """Return whether some worker of a queue accepts messages of a key, or there is no worker."""
    serving = [worker for worker in workers if queue in worker.queues]
    return not serving or any(worker.accepts(signed_with) for worker in serving)


def gather(ledger: Ledger, publisher: Publisher, manifest: Manifest) -> int:
    """Move a job's messages from the queues of other priorities to those of its own.

    A message of a batch that is done, or runs, stays where it is: a worker skips it.

    Returns:
        Number of messages moved.
    """
    keys: MessageKeys = publisher.app.conf.message_keys
    outstanding = {
        (batch.job, batch.index, batch.rung): batch
        for batch in ledger.batches.outstanding(manifest)
    }
    others = [priority for priority in Priority if priority is not manifest.priority]
    return sum(
        move(Queues(ledger.redis), keys, manifest, outstanding, rung, priority)
        for rung in ladder(manifest.rung)
        for priority in others
    )


def move(
    queues: Queues,
    keys: MessageKeys,
    manifest: Manifest,
    outstanding: Mapping[BatchKey, Batch],
    rung: Rung,
    other: Priority,
) -> int:
    """Move a job's messages at one rung from the queue of another priority.

    Only the name of the batch is taken from a message: it is written and signed anew.
    """
    model = model_of(manifest)
    source, to = (
        queue_name(model, manifest.rung, rung, priority) for priority in (other, manifest.priority)
    )
    found = [
        (item, outstanding[key])
        for item in queues.messages(source)
        if (key := batch_key_of(item)) is not None and key in outstanding and key[2] is rung
    ]
    moved = 0
    for start in range(0, len(found), MOVED_TOGETHER):
        part = found[start : start + MOVED_TOGETHER]
        new = written(keys, model, (batch for _, batch in part))
        moved += queues.move_messages(
            [(item, text) for (item, _), text in zip(part, new, strict=True)],
            job=job_key(manifest.job),
            queue=job_queue(manifest),
            source=source,
            to=to,
        )
    return moved


class Priorities:
    """The priorities of open jobs, as a keeper follows them."""

    def __init__(self, ledger: Ledger, publisher: Publisher) -> None:
        self.ledger = ledger
        self.publisher = publisher
        self._changed: list[Manifest] = []  # of jobs whose priority was changed
        self._next_look = 0.0

    def applied(self, manifests: Mapping[str, Manifest]) -> dict[str, Manifest]:
        """Return the manifests of jobs with the priorities that they have now."""
        now, self._changed = {}, []
        found = self.ledger.jobs.queues(manifests)
        for job, manifest in manifests.items():
            queue, is_changed = found[job]
            now[job] = manifest if queue is None else manifest.with_priority(priority_of(queue))
            self._changed += [now[job]] if is_changed else []
        return now

    def gather(self) -> None:
        """Move, every few seconds, messages of jobs whose priority was changed."""
        started = time.monotonic()
        if started < self._next_look or not self._changed:
            return
        workers = self.ledger.workers.all()
        for manifest in self._changed:
            with self.publisher.one_by_one(manifest.job):
                progress = self.ledger.jobs.progress(manifest.job)
                if progress is not None and can_sign_for(workers, progress, self.publisher):
                    gather(self.ledger, self.publisher, manifest)
        took = time.monotonic() - started
        self._next_look = started + max(LOOK_SECONDS, LOOK_SHARE * took)
