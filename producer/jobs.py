"""A job's way into the queue: opened in the ledger, its batches published, lost ones again."""

import logging
from collections.abc import Iterable

from celery import Celery
from kombu.exceptions import KombuError
from redis.exceptions import ConnectionError as RedisConnectionError

from common.batchfile import decode_batch
from common.broker import EMBED_TASK, queue_name, queue_of
from common.layout import input_key, output_prefix, parse_shard_key
from common.ledger import Ledger
from common.manifest import Manifest
from common.messages import Batch, BatchResult, Instability, Status
from common.modeltable import ModelSource
from common.rungs import PRECISION_CODES, Rung
from common.shard import open_embedding_file
from common.store import Store

log = logging.getLogger(__name__)

#: Messages that go to Redis in one round trip.
PUBLISH_TOGETHER = 1000

RUNG_OF_CODE = {PRECISION_CODES[rung]: rung for rung in Rung}


def job_queue(manifest: Manifest) -> str:
    return queue_name(ModelSource.parse(manifest.model), manifest.rung)


def open_job(store: Store, ledger: Ledger, app: Celery, manifest: Manifest) -> int:
    """Open a staged job, or go on with one: publish what is neither done nor under way.

    The store is the truth: a ledger that does not know the job, or counts as done what the store
    does not have, is made anew from the store. Batches that failed are tried again.

    Returns:
        Batches published.
    """
    queue = job_queue(manifest)
    for result in ledger.results(manifest.job):
        if result.status is Status.FAILED:
            ledger.reopen(result)
    done = ledger.done(manifest)
    stored = {parse_shard_key(key)[0] for key in store.keys(output_prefix(manifest.job))}
    if done - stored:
        ledger.forget(manifest.job)
    if ledger.create(manifest, queue):
        restore_from_store(store, ledger, manifest)
    return publish_outstanding(ledger, app, manifest)


def publish_outstanding(ledger: Ledger, app: Celery, manifest: Manifest) -> int:
    """Publish every batch that is neither done nor leased; one published twice runs once."""
    indices = ledger.outstanding(manifest)
    publish(app, job_queue(manifest), map(manifest.batch, indices))
    return len(indices)


def publish(app: Celery, queue: str, batches: Iterable[Batch]) -> None:
    """Send batches to a queue.

    Raises:
        RedisError: Redis is away or full. Some may have been sent; to send them again is no harm.
    """
    try:
        send(app, queue, batches)
    except KombuError as error:
        raise RedisConnectionError(str(error)) from error


def send(app: Celery, queue: str, batches: Iterable[Batch]) -> None:
    with app.producer_or_acquire() as producer, producer.batch(PUBLISH_TOGETHER):
        for batch in batches:
            app.send_task(
                EMBED_TASK,
                kwargs=batch.model_dump(mode="json"),
                queue=queue_of(queue),
                producer=producer,
            )


def restore_from_store(store: Store, ledger: Ledger, manifest: Manifest) -> None:
    """Report the shards that the store has to a ledger that does not know of them."""
    for key in store.keys(output_prefix(manifest.job)):
        index, rung = parse_shard_key(key)
        try:
            result, weights = result_of_shard(store, manifest, key, index, rung)
            ledger.pin_weights(manifest.job, weights)
            ledger.complete(result)
        except (OSError, KeyError) as error:
            log.warning("%s/%s cannot be read (%s): it is computed anew.", store.url, key, error)


def result_of_shard(
    store: Store, manifest: Manifest, key: str, index: int, rung: Rung
) -> tuple[BatchResult, str]:
    """What the worker reported when it wrote this shard, as far as it can be told, and the
    fingerprint of its weights.
    """
    with store.open(key) as path, open_embedding_file(path) as file:
        rows = {int(row) for row in file["rows"][:]}
        codes = file["precision"][:1]
        weights = str(file.attrs["weights"])
    records = manifest.batch_records[index]
    missing = []
    if len(rows) < records:
        batch = decode_batch(store.get(input_key(manifest.job, index)))
        missing = [record.row for record in batch if record.row not in rows]
    result = BatchResult(
        job=manifest.job,
        index=index,
        rung=rung,
        status=Status.NUMERICAL_INSTABILITY if missing else Status.OK,
        worker="store",
        precision=RUNG_OF_CODE[int(codes[0])] if len(codes) else None,
        records=len(rows),
        tokens=manifest.batch_tokens[index],
        unstable=tuple(
            Instability(row=row, nan=0, inf=0, finite_min=None, finite_max=None) for row in missing
        ),
    )
    return result, weights


class LostWork:
    """Publishes again what was lost: leases that ran out, and messages that vanished.

    Redis gives a message out before it notes that it did: a worker that is killed between the two
    takes the message with it. Then the queue is empty, nobody holds a lease, and the job is not
    done; if that stays so, everything outstanding is published again.
    """

    #: Looks in a row at a job that stands still before its messages count as lost.
    PATIENCE = 20

    def __init__(self, ledger: Ledger, app: Celery, manifest: Manifest) -> None:
        self.ledger = ledger
        self.app = app
        self.manifest = manifest
        self._still = 0

    def look(self) -> int:
        """Republish what is lost; returns how many batches that were."""
        expired = self.ledger.expire_leases(self.manifest.job)
        if expired:
            queue = job_queue(self.manifest)
            publish(self.app, queue, [self.manifest.batch(index) for index in expired])
            return len(expired)
        progress = self.ledger.progress(self.manifest.job)
        stands_still = (
            progress is not None
            and not progress.finished
            and progress.leased == 0
            and self.ledger.queued(progress.queue) == 0
        )
        self._still = self._still + 1 if stands_still else 0
        if self._still < self.PATIENCE:
            return 0
        self._still = 0
        return publish_outstanding(self.ledger, self.app, self.manifest)
