"""One batch through a worker: claim, fetch, embed, write, complete."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from redis.exceptions import RedisError

from common.embeddings.seal import Computed
from common.errors import UserError
from common.job.manifest import Manifest
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record
from common.ledger.claims import ClaimOutcome, ClaimResult, ReleaseReason
from common.ledger.events import STORE_FAILED, EventKind
from common.ledger.ledger import Ledger
from common.ledger.unreadable import is_odd_value
from common.memory import is_out_of_memory
from common.store import Store, StoreError
from common.wire.dead_letters import DeadLetter, DeadLetters
from common.wire.messages import Batch, BatchResult, Instability, Status, retry_of
from common.wire.queues import batch_queue
from workers.batches.counting import timed
from workers.batches.events import BatchEvents
from workers.batches.inputs import check_alphabet, fetch_records, rows_to_retry, tokens_of
from workers.batches.isolation import IsolationPolicy
from workers.batches.lease import Lease, LeaseLostError
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.manifests import Manifests
from workers.batches.meter import Meter, RunningBatch
from workers.batches.outcome import BatchOutcome, OutcomeKind, outcome_of, refused_claim
from workers.batches.results import failure_of, result_of, summary, text_of, with_history
from workers.batches.retry_policy import RequeueError, RetryPolicy
from workers.batches.shards import delete_if_orphaned, write_shard
from workers.engine.device import DeviceLostError
from workers.engine.engine import Engine, Outcome
from workers.engine.finiteness import describe_instability
from workers.runtime import watchdog

log = logging.getLogger(__name__)

#: Seconds after which a request to the ledger, or to the store, counts as hung. Redis-py gives up
#: after half an hour if connections are accepted and nothing is answered; S3, with all retries,
#: earlier; a folder on a file server that is gone, never.
LEDGER_SECONDS, STORE_SECONDS = 3600.0, 1800.0


class BatchRunner:
    """Runs batches with one engine, one store and one ledger; several threads may call it.

    Args:
        renewer: renews the leases of batches that run.
        publish: publishes a batch's message.
        publish_next: publishes it as the next one to be taken.
        on_device_lost: called when the device is lost; does not return.
        name: of the worker.
        stopping: set when the worker is told to stop.
        meter: counts what is done.
    """

    def __init__(
        self,
        *,
        store: Store,
        ledger: Ledger,
        engine: Engine,
        renewer: LeaseRenewer,
        publish: Callable[[Batch], object],
        publish_next: Callable[[Batch], object],
        on_device_lost: Callable[[DeviceLostError], NoReturn],
        name: str,
        stopping: threading.Event,
        meter: Meter | None = None,
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.engine = engine
        self.renewer = renewer
        self.publish = publish
        self.publish_next = publish_next
        self.on_device_lost = on_device_lost
        self.name = name
        self.stopping = stopping
        self.meter = meter or Meter()
        self.events = BatchEvents(ledger.events, name)
        self.retry = RetryPolicy(stopping)
        self.isolation = IsolationPolicy()
        self.manifests = Manifests(store)

    def run(self, batch: Batch) -> BatchOutcome:
        """Run a batch until the ledger has its result. Skip it if it is not to be computed now.

        Raises:
            RequeueError: the batch's message should be requeued.
        """
        with watchdog.limit(f"batch {batch.index} of {batch.job}"):
            lease = self._claim(batch)
            if lease.attempt.outcome is not ClaimOutcome.TAKEN:
                refusal = lease.attempt.outcome
                log.info("Batch %d of %s is skipped: %s.", batch.index, batch.job, refusal)
                return refused_claim(refusal)
            try:
                outcome = self._run(lease)
            except LeaseLostError:
                cause = "another worker has it, or its job was cancelled"
                log.warning("Batch %d of %s is dropped: %s.", batch.index, batch.job, cause)
                with suppress(RedisError):  # after a cancellation it is held, until it expires
                    lease.release(ReleaseReason.INTERRUPTED)
                return BatchOutcome(OutcomeKind.DROPPED, cause)
            except RedisError as error:
                self.retry.release(lease)
                if is_odd_value(error):
                    return self._bury(batch, wrong_type(batch))
                raise RequeueError(f"the ledger did not answer: {error}") from error
            else:
                if outcome.result is not None:
                    self._report(batch, outcome.result)
                return outcome

    def _claim(self, batch: Batch) -> Lease:
        self.retry.raise_if_stopping()
        loaded = self.engine.loaded
        if batch.model != loaded.source.text:
            self._leave_to_others(f"this worker serves {loaded.source.text}")
        owner = f"{self.name}/{uuid.uuid4().hex[:8]}"
        lease = Lease(batch, owner, self.ledger, self.renewer)
        try:
            with watchdog.stage("claim", LEDGER_SECONDS):
                lease.claim(loaded.fingerprint, loaded.model_digest)
        except RedisError as error:
            if is_odd_value(error):
                self._bury(batch, wrong_type(batch))
                lease.attempt = ClaimResult(ClaimOutcome.UNKNOWN)
                return lease
            self.retry.release(lease)  # the request may have arrived
            raise RequeueError(f"the ledger did not answer: {error}") from error
        if lease.attempt.outcome is ClaimOutcome.OTHER_WEIGHTS:
            self._leave_to_others(
                f"its job has other weights than {loaded.fingerprint}, which this worker loaded "
                f"from {loaded.source.text}: if the job's are there now, restart the worker"
            )
        return lease

    def _bury(self, batch: Batch, reason: str) -> BatchOutcome:
        """Count a batch whose entries in the ledger are odd: requeued, it would come back at once.

        A keeper publishes it again later.
        """
        letter = DeadLetter(
            queue=batch_queue(batch),
            worker=self.name,
            reason=reason,
            message=f"batch {batch.index}",
        )
        DeadLetters(self.ledger.redis).add(letter)
        return BatchOutcome(OutcomeKind.REFUSED, reason)

    def _leave_to_others(self, reason: str) -> NoReturn:
        self.retry.wait_for_other_worker()
        raise RequeueError(reason)

    def _run(self, lease: Lease) -> BatchOutcome:
        """Return the outcome of a batch, once the ledger has its result, if it has one."""
        batch = lease.batch
        if lease.attempt.previous_owner:
            detail = f"the lease of {lease.attempt.previous_owner} expired"
            self.events.add(EventKind.LEASE_LOST, batch, detail)
        try:
            earlier = self._rows_to_retry(lease)
        except UnicodeDecodeError as error:  # of no version; nor could a failure replace it
            lease.release(ReleaseReason.INTERRUPTED)
            return self._bury(batch, f"its rows to retry in the ledger are not readable ({error})")
        if earlier is None:
            lease.release(ReleaseReason.INTERRUPTED)
            log.info("Batch %d of %s: no row is left to retry.", batch.index, batch.job)
            return BatchOutcome(OutcomeKind.SKIPPED, "no row is left to retry")
        with lease, self.meter.running(batch) as running:
            result = self._result(lease, earlier, running)
            self._complete(lease, result)
        return outcome_of(result)

    def _rows_to_retry(self, lease: Lease) -> Mapping[int, Instability] | None:
        """Return what lower rungs saw of the rows to retry; None if there are none.

        Raises:
            RequeueError: only a worker of another version can read it.
        """
        try:
            return rows_to_retry(self.ledger, lease.batch)
        except UserError as error:
            with lease:
                self._requeue(lease, error)

    def _result(
        self, lease: Lease, earlier: Mapping[int, Instability], running: RunningBatch
    ) -> BatchResult:
        """Return the result of a batch, be it a failure."""
        batch = lease.batch
        try:
            return self._embed(lease, earlier, running)
        except (LeaseLostError, RedisError):
            raise
        except RequeueError:
            lease.release(ReleaseReason.INTERRUPTED)
            raise
        except DeviceLostError as error:
            lease.release(ReleaseReason.CRASHED)
            with suppress(RedisError):  # its own message would be redelivered after an hour
                self.publish_next(batch)
            self.on_device_lost(error)
        except StoreError as error:
            if not self.retry.is_last(lease.attempt):
                self._requeue(lease, error)
            return failure_of(batch, self.name, error)
        except UserError as error:
            return failure_of(batch, self.name, error)
        except Exception as error:
            if is_out_of_memory(error) and not self.retry.is_last(lease.attempt):
                self._requeue(lease, error)
            log.exception("Batch %d of %s failed.", batch.index, batch.job)
            return failure_of(batch, self.name, error)

    def _requeue(self, lease: Lease, error: Exception) -> NoReturn:
        """Have a batch tried again after a pause, here or elsewhere."""
        reason = f"{STORE_FAILED}{lease.attempt.attempts}: {text_of(error)}"
        detail = reason if isinstance(error, StoreError) else f"not computed in {reason}"
        self.events.add(EventKind.REQUEUED, lease.batch, detail)
        self.retry.wait_before_requeue(lease.attempt)
        lease.release(ReleaseReason.FAILED)
        raise RequeueError(reason) from error

    def _embed(
        self, lease: Lease, earlier: Mapping[int, Instability], running: RunningBatch
    ) -> BatchResult:
        """Fetch and embed the rows of a batch, and write its shard."""
        batch, began = lease.batch, time.time()
        with watchdog.stage("fetch", STORE_SECONDS):
            manifest, records = self._fetch(batch, earlier)

        def check() -> None:
            self.retry.raise_if_stopping()
            lease.raise_if_lost()

        def embed(records: Sequence[Record]) -> Outcome:
            count = self.meter.counter(running, tokens_of(records, form, spec))
            return self.engine.embed(
                records, form, rung=batch.rung, between_packs=check, on_pack=count
            )

        form, spec = manifest.form, self.engine.loaded.spec
        outcome, crashing = self.isolation.embed(lease, records, form, dim=spec.dim, embed=embed)
        self.meter.read_memory()
        outcome = replace(outcome, unstable=with_history(outcome.unstable, earlier))
        if not lease.is_sure:
            lease.renew()  # or another worker's shard could be replaced
        stops = bool(outcome.unstable) and self.ledger.jobs.stops_at_instability(batch.job)
        result = result_of(batch, self.name, outcome, crashing, stops_at_instability=stops)
        with watchdog.stage("write", STORE_SECONDS):
            self._write(lease, form, outcome, result, began)
        return result

    def _fetch(
        self, batch: Batch, earlier: Mapping[int, Instability]
    ) -> tuple[Manifest, list[Record]]:
        manifest = self.retry.ask_store(lambda: self.manifests.of(batch))
        check_alphabet(manifest, self.engine.loaded)
        fetch = timed("read", lambda: fetch_records(self.store, manifest, batch, earlier))
        return manifest, self.retry.ask_store(fetch)

    def _write(
        self,
        lease: Lease,
        form: OutputForm,
        outcome: Outcome,
        result: BatchResult,
        began: float,
    ) -> None:
        """Write the rows without an embedding, then the shard."""
        batch, loaded = lease.batch, self.engine.loaded
        if result.quarantined:
            lease.renew()  # what it writes replaces what the next owner wrote
            quarantine = Quarantine(job=batch.job, batch=batch.index, rows=result.quarantined)
            add = timed("write", lambda: add_to_quarantine(self.store, quarantine))
            self.retry.ask_store(add)
        if outcome.unstable:
            where = f"job {batch.job} batch {batch.index} rung {batch.rung}"
            log.warning("%s", describe_instability(where, outcome.unstable, result.next))
        computed = Computed(
            worker=self.name, began=began, ended=time.time(), device_seconds=result.seconds
        )
        write = timed(
            "write",
            lambda: write_shard(
                *(self.store, batch, form, loaded, outcome),
                before_replacing=lease.renew,
                computed=computed,
            ),
        )
        self.retry.ask_store(write)

    def _complete(self, lease: Lease, result: BatchResult) -> None:
        """Report a result to the ledger; of a lost lease, a failure counts for nothing."""

        def complete() -> bool:
            # Or the shard may be gone, by a retry of the next owner's result. If there is a result,
            # this one may have arrived, and ended the lease: one more report changes nothing.
            if not lease.is_sure and not self.ledger.results.has(result):
                lease.renew()
            return self.ledger.results.complete(result, owner=lease.owner)

        with watchdog.stage("complete", LEDGER_SECONDS):
            counted = self.retry.ask_ledger(complete)
        if counted:
            return
        if result.status is Status.FAILED:
            raise LeaseLostError
        if not self.ledger.results.has(result):
            delete_if_orphaned(self.store, lease.batch)

    def _report(self, batch: Batch, result: BatchResult) -> None:
        """Log a result that the ledger has, and publish the retry of its unstable rows."""
        log.info("Batch %d of %s: %s.", batch.index, batch.job, summary(result))
        self.events.add_problems(batch, result)
        if result.next is not None and not result.stops_job:
            self._publish_retry(batch, result)

    def _publish_retry(self, batch: Batch, result: BatchResult) -> None:
        try:
            # Whether or not it was published before: a batch is computed once for two messages.
            self.publish(retry_of(batch, result))
        except RedisError as error:
            # The ledger has the rows: the keeper finds and publishes them.
            log.warning("The retry of batch %d could not be published: %s.", result.index, error)


def wrong_type(batch: Batch) -> str:
    return f"a key or value of the job {batch.job} has the wrong type: delete it"
