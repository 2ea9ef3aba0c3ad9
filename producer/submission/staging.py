"""Staging an input: checking every record, writing every batch, and the manifest last."""

from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime

from redis.exceptions import RedisError

from common.job.layout import closed_key, output_prefix, quarantine_prefix
from common.job.manifest import Manifest, find_job, read_manifest, write_manifest
from common.model_specs import ModelSpec
from common.store import ObjectExistsError, Store, StoreError
from producer.input.batches import Budget
from producer.scheduling.job_lock import JobLockedError
from producer.submission.batch_objects import StagedBatch
from producer.submission.earlier import EarlierRows
from producer.submission.growing import GrowingJob
from producer.submission.input_keys import InputKeys
from producer.submission.request import Request, job_name, reader_of
from producer.submission.staged_batches import staged_batches
from producer.submission.staged_manifest import Described


def stage(
    store: Store,
    request: Request,
    fingerprint: str,
    digest: str | None = None,
    *,
    budget: Budget,
    spec: ModelSpec,
    created: Callable[[], datetime],
    growing: GrowingJob | None = None,
    on_batch: Callable[[int], None] = lambda _records: None,
    check: Callable[[Manifest], None] = lambda _manifest: None,
    keep: Callable[[Callable[[], None]], None] = lambda _check: None,
    hold: Callable[[], None] = lambda: None,
    earlier: EarlierRows | None = None,
    processes: int | None = None,
) -> Manifest:
    """Write a job's input objects and its manifest.

    Only the batches that are being written are in memory. The input objects are this staging's
    alone, and on an error nothing else is deleted, but for what was computed meanwhile: whoever
    writes the manifest first, has the job.

    Args:
        fingerprint: the request's hash, which names the job.
        digest: of the model's files, if they are on this machine.
        budget: the largest size of a batch.
        spec: the model's shape, for the sizes of batches.
        created: returns the time, once all batches are written.
        growing: publishes batches meanwhile, if it takes long; None: there shall be no such job
            before all of it is staged.
        on_batch: called with the number of rows of each batch that was written.
        check: called before the manifest is written; raises if there shall be no such job.
        keep: called before each batch is written, with what to check after a long pause; raises if
            this producer slept and lost the lock.
        hold: renews the job's lock; raises if another producer had it meanwhile.
        earlier: what earlier jobs have computed, and is not computed again.
        processes: that stage the input; None: as many as its size and the CPUs give. The result is
            the same.

    Returns:
        The manifest; another producer's, if that was faster.

    Raises:
        UserError: a record is bad, or the store cannot be written.
    """
    job = job_name(request.source, fingerprint)
    reader = reader_of(request)
    keys = InputKeys(store, job, hold)
    weights = "" if earlier is None else str(earlier.attributes["weights"])
    described = Described(request, fingerprint, digest, keys.staging, weights)
    staged: list[StagedBatch] = []
    at: datetime | None = None

    def grow() -> None:
        """Publish the batches so far."""
        if growing is None or not growing.is_due():
            return
        with growing.portion():
            keys.check_held()  # another may have opened the job, or deleted it
            if growing.created is None:
                check(described.opening(created(), staged))
                delete_leftovers(store, job, keys.check_held)
            growing.grow(lambda created: described.opening(created, staged))

    try:
        keys.check()  # they are free again once another has done the whole
        batches = staged_batches(
            *(store, request, job, keys.staging, reader),
            budget=budget,
            spec=spec,
            earlier=earlier,
            keep=lambda: keep(keys.check),
            processes=processes,
        )
        with closing(batches):  # on an error nothing is written any more
            for batch in batches:
                staged.append(batch)
                on_batch(batch.size.rows)
                grow()
        hold()
        opened = None if growing is None else growing.created
        at = opened or created()
        manifest = described.manifest(at, reader, staged)
        check(manifest)
        if growing is not None:
            growing.add_last(manifest)
        if opened is None:
            delete_leftovers(store, job, keys.check_held)
        keys.check_held()
        write_manifest(store, manifest, replace=False)
    except ObjectExistsError:
        manifest = read_manifest(store, job)
        if manifest.created != at:
            keys.give_up()
            return manifest
    except BaseException:
        with suppress(StoreError, RedisError, JobLockedError):
            # The answer to the last write may have been lost.
            found = find_job(store, job)
            if found is None or found.created != at:
                if growing is not None:  # first, so that nobody misses the objects
                    with suppress(JobLockedError):
                        growing.drop(job, hold)
                keys.delete_objects()
        raise
    with suppress(RedisError, JobLockedError):  # the job is staged: what is left does no harm
        keys.delete_dead()
    return manifest


def delete_leftovers(store: Store, job: str, check: Callable[[], None]) -> None:
    """Delete what is left of an earlier job of the same name, which has no manifest any more.

    Its opening stays until this job has its own, or is open: if this producer ends before, a keeper
    sees by it that the earlier job is this store's, and abandoned.

    Args:
        check: raises if it has one.
    """
    for prefix in (closed_key(job), output_prefix(job), quarantine_prefix(job)):
        if any(True for _ in store.keys(prefix)):
            store.delete(prefix, check)
