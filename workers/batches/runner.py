"""One batch through a worker: claim, fetch, embed, write, complete."""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import NoReturn, TypeVar

from redis.exceptions import RedisError

from common.backoff import backoff
from common.errors import UserError
from common.job.manifest import Manifest, read_manifest
from common.job.output_form import OutputForm
from common.job.quarantine import Quarantine, add_to_quarantine
from common.job.records import Record, decode_batch
from common.ledger.claims import ClaimOutcome, ClaimResult, CrashRecord, ReleaseReason
from common.ledger.events import Event, EventKind, log_event
from common.ledger.leases import LEASE_SECONDS
from common.ledger.ledger import Ledger
from common.store import Store, StoreError
from common.wire.messages import Batch, BatchResult, Instability, Status, retry_of
from workers.batches.isolation import (
    CAREFUL_AFTER,
    Turns,
    describe_poison,
    embed_carefully,
    is_hopeless,
    join_outcomes,
    read_trail,
)
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.results import counted_rows, failure_of, result_of, summary, with_history
from workers.batches.shards import write_shard
from workers.engine.engine import DeviceLostError, Engine, Outcome
from workers.engine.finiteness import describe_instability
from workers.runtime import watchdog

log = logging.getLogger(__name__)

#: Times that the store is asked again; the client underneath has its own, shorter retries. And the
#: ledger, with a result that cost much more than the waiting.
STORE_RETRIES, LEDGER_RETRIES = 2, 5

#: Seconds at most before the store is asked again; and before a batch is given back whose store
#: failed again and again, doubled with every attempt up to the last: it may be away for minutes.
STORE_PAUSE, FIRST_PAUSE, LONGEST_PAUSE = 2.0, 10.0, 60.0

#: Attempts after which a batch whose store keeps failing is reported instead of tried again.
MAX_ATTEMPTS = 5

#: Pause of a worker after it met a batch that it must not compute.
LEAVE_SECONDS = 1.0

#: Seconds after which whoever waits for Redis or for the store hangs. Redis-py gives up by itself
#: after half an hour, where connections are taken and nothing is answered; S3, with all retries,
#: earlier; a folder on a server that is gone, never.
LEDGER_SECONDS, STORE_SECONDS = 3600.0, 1800.0

EXIT_DEVICE_LOST = 70

T = TypeVar("T")


class CrashLoopError(UserError):
    """A batch ended too many processes, and no row of its own is to blame."""

    def __init__(self, trail: CrashRecord) -> None:
        how = "one or another" if trail.suspects else "none"
        super().__init__(
            f"it ended {trail.crashes} worker processes, and {how} of its sequences did so alone. "
            "The workers' logs say how they ended; to try it again: producer retry JOB"
        )


class LeaseLostError(Exception):
    """The batch was taken over while it was computed: whoever has it now writes it. Or its job was
    cancelled.
    """


class RequeueError(Exception):
    """The batch was not done, through no fault of its own: its message goes back to the queue."""


class BatchRunner:
    """Runs batches with one engine, one store and one ledger. Called from several threads."""

    def __init__(
        self,
        *,
        store: Store,
        ledger: Ledger,
        engine: Engine,
        heartbeat: LeaseRenewer,
        publish: Callable[[Batch], object],
        name: str,
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.engine = engine
        self.heartbeat = heartbeat
        self.publish = publish
        self.name = name
        self.stopping = threading.Event()
        self._turns = Turns()
        # What is used of a job's manifest never changes: the job's name is made of it.
        self._manifest = lru_cache(maxsize=16)(lambda job: read_manifest(store, job))

    def run(self, batch: Batch) -> None:
        """Run a batch to a result in the ledger, or do nothing if it is not ours to run.

        Raises:
            RequeueError: the message should go back to the queue.
        """
        owner = f"{self.name}/{uuid.uuid4().hex[:8]}"
        try:
            with watchdog.stage("claim", LEDGER_SECONDS):
                attempt = self._claim(batch, owner)
        except RedisError as error:
            self._let_go(batch, owner)  # it may have heard
            raise RequeueError(f"the ledger did not answer: {error}") from error
        if attempt.outcome is not ClaimOutcome.TAKEN:
            log.info("Batch %d of %s is left alone: %s.", batch.index, batch.job, attempt.outcome)
            return
        try:
            result = self._run(batch, owner, attempt)
        except LeaseLostError:
            log.warning(
                "Batch %d of %s is dropped: taken over, or cancelled.", batch.index, batch.job
            )
            # If it is ours still, it need not wait for the lease to run out should it be resumed.
            with suppress(RedisError):
                self.ledger.leases.release(batch, owner=owner, reason=ReleaseReason.INTERRUPTED)
            return
        except RedisError as error:
            self._let_go(batch, owner)
            raise RequeueError(f"the ledger did not answer: {error}") from error
        if result is None:
            log.info("Batch %d of %s: nothing is left to retry.", batch.index, batch.job)
            return
        log.info("Batch %d of %s: %s.", batch.index, batch.job, summary(result))
        self._tell(batch, result)
        if result.next is not None and not result.stops_job:
            self._pass_on(batch, result)

    def _let_go(self, batch: Batch, owner: str) -> None:
        """Release a claim once the ledger answers, or let it run out: given back while it stands, a
        batch would be dropped as held by another.
        """
        for _ in range(LEASE_SECONDS):
            try:
                self.ledger.leases.release(batch, owner=owner, reason=ReleaseReason.INTERRUPTED)
                return
            except RedisError:
                if self.stopping.wait(1):
                    return

    def _run(self, batch: Batch, owner: str, attempt: ClaimResult) -> BatchResult | None:
        """The result of a batch that is ours, which the ledger has then; None if none is wanted."""
        if attempt.previous_owner:
            self._note(EventKind.LEASE_LOST, batch, f"taken over from {attempt.previous_owner}")
        earlier = self._earlier(batch)
        if earlier is None:
            self.ledger.leases.release(batch, owner=owner, reason=ReleaseReason.INTERRUPTED)
            return None
        with self.heartbeat.holding(batch, owner):
            result = self._result(batch, owner, attempt, earlier)
            with watchdog.stage("complete", LEDGER_SECONDS):
                # Not to be computed once more because Redis is restarted.
                pauses = backoff(LEDGER_RETRIES, first=1, longest=8)
                complete = partial(self.ledger.results.complete, result, owner=owner)
                counted = self._retrying(complete, pauses)
                if result.status is Status.FAILED and not counted:
                    raise LeaseLostError
        return result

    def _tell(self, batch: Batch, result: BatchResult) -> None:
        """Note what went wrong with a batch."""
        if result.status is Status.FAILED:
            self._note(EventKind.FAILED, batch, result.error or "")
        if result.quarantined:
            self._note(EventKind.QUARANTINE, batch, counted_rows(result.quarantined))
        if result.unstable and result.next is not None:
            rows = counted_rows(result.unstable)
            self._note(EventKind.RETRY, batch, f"on to {result.next}: {rows}")

    def _note(self, kind: EventKind, batch: Batch, detail: str) -> None:
        event = Event(
            event=kind,
            job=batch.job,
            batch=batch.index,
            rung=batch.rung,
            worker=self.name,
            detail=detail,
        )
        log_event(log, event)
        with suppress(RedisError):  # the log has it
            self.ledger.events.add(event)

    def _pass_on(self, batch: Batch, result: BatchResult) -> None:
        """Queue the rows that were not finite at the next rung; one message too many is no harm."""
        try:
            self.publish(retry_of(batch, result))
        except RedisError as error:
            # The ledger knows that they are to be done: whoever looks after lost work queues them.
            log.warning("The retry of batch %d could not be queued: %s.", result.index, error)

    def _claim(self, batch: Batch, owner: str) -> ClaimResult:
        self._stop_if_asked()
        loaded = self.engine.loaded
        if batch.model != loaded.source.text:
            self._leave_to_others(f"this worker serves {loaded.source.text}")
        attempt = self.ledger.leases.claim(batch, owner=owner, weights=loaded.fingerprint)
        if attempt.outcome is ClaimOutcome.OTHER_WEIGHTS:
            self._leave_to_others(
                f"its job began with other weights than {loaded.fingerprint}, which this worker "
                f"has of {loaded.source.text}"
            )
        return attempt

    def _earlier(self, batch: Batch) -> Mapping[int, Instability] | None:
        """What was seen of the rows that a retry is about; None if its ledger knows of none."""
        if batch.previous_rung is None:
            return {}
        result = self.ledger.results.get(batch.job, batch.index, batch.previous_rung)
        if result is None or result.next is not batch.rung:
            return None
        return {bad.row: bad for bad in result.unstable}

    def _leave_to_others(self, reason: str) -> NoReturn:
        # Those who can do it should find it: do not take it again at once.
        self.stopping.wait(LEAVE_SECONDS)
        raise RequeueError(reason)

    def _result(
        self, batch: Batch, owner: str, attempt: ClaimResult, earlier: Mapping[int, Instability]
    ) -> BatchResult:
        try:
            return self._embed(batch, owner, attempt, earlier)
        except RequeueError:
            self.ledger.leases.release(batch, owner=owner, reason=ReleaseReason.INTERRUPTED)
            raise
        except StoreError as error:
            if attempt.attempts - attempt.crashes < MAX_ATTEMPTS:
                self._give_back(batch, owner, attempt, error)
            return failure_of(batch, self.name, error)
        except DeviceLostError as error:
            self.ledger.leases.release(batch, owner=owner, reason=ReleaseReason.CRASHED)
            with suppress(RedisError):  # its own message comes back after an hour
                self.publish(batch)
            self.end_process(error)
        except (LeaseLostError, RedisError):
            raise
        except UserError as error:
            return failure_of(batch, self.name, error)
        except Exception as error:
            log.exception("Batch %d of %s failed.", batch.index, batch.job)
            return failure_of(batch, self.name, error)

    def _give_back(
        self, batch: Batch, owner: str, attempt: ClaimResult, error: Exception
    ) -> NoReturn:
        """Let it be tried again after a while, as what failed may take longer to be mended."""
        self._note(EventKind.GIVEN_BACK, batch, f"attempt {attempt.attempts}: {error}")
        *_, pause = backoff(attempt.attempts, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self.stopping.wait(pause)
        self.ledger.leases.release(batch, owner=owner)
        raise RequeueError(f"attempt {attempt.attempts}: {error}") from error

    def end_process(self, error: Exception) -> NoReturn:
        """End at once: other threads would fail every batch that they take."""
        log.critical("The device is lost (%s): this process ends, the next one begins.", error)
        os._exit(EXIT_DEVICE_LOST)

    def _embed(
        self, batch: Batch, owner: str, attempt: ClaimResult, earlier: Mapping[int, Instability]
    ) -> BatchResult:
        with watchdog.stage("fetch", STORE_SECONDS):
            manifest = self._retrying(lambda: self._manifest(batch.job))
            self._check_alphabet(manifest)
            records = self._records(batch, earlier)
        form = manifest.form
        outcome, poison = self._compute(batch, owner, attempt, records, form)
        # A shard of other rows must not replace the one that was counted.
        if not self.heartbeat.is_sure(owner):
            self._renew(batch, owner)
        outcome = replace(outcome, unstable=with_history(outcome.unstable, earlier))
        stops = bool(outcome.unstable) and self.ledger.jobs.stops_at_instability(batch.job)
        poisoned = describe_poison(poison, form)
        result = result_of(batch, self.name, outcome, poisoned, stops_at_instability=stops)
        with watchdog.stage("write", STORE_SECONDS):
            if result.quarantined:
                self._put_on_record(batch, result.quarantined)
            if outcome.unstable:
                where = f"job {batch.job} batch {batch.index} rung {batch.rung}"
                log.warning("%s", describe_instability(where, outcome.unstable, result.next))
            loaded = self.engine.loaded
            self._retrying(
                lambda: write_shard(
                    *(self.store, batch, form, loaded, outcome),
                    before_replacing=lambda: self._renew(batch, owner),
                )
            )
        return result

    def _compute(
        self,
        batch: Batch,
        owner: str,
        attempt: ClaimResult,
        records: Sequence[Record],
        form: OutputForm,
    ) -> tuple[Outcome, list[Record]]:
        """What the engine makes of records, and those that are not computed any more."""

        def embed(records: Sequence[Record]) -> Outcome:
            return self.engine.embed(
                records,
                form,
                rung=batch.rung,
                between_packs=lambda: self._stop_if_not_ours(owner),
            )

        def follow(trail: CrashRecord) -> None:
            if not self.ledger.leases.save_crash_record(batch, trail, owner=owner):
                raise LeaseLostError

        if attempt.crashes < CAREFUL_AFTER:
            with self._turns.together():
                return embed(records), []
        trail = read_trail(self.ledger.leases.crash_record(batch), attempt.crashes)
        if is_hopeless(trail):
            raise CrashLoopError(trail)
        log.warning(
            "Batch %d of %s ended %d processes: its rows are computed one at a time.",
            *(batch.index, batch.job, attempt.crashes),
        )
        # Or the end that another batch brings about is blamed on a row of this one.
        with self._turns.alone():
            try:
                parts, poison = embed_carefully(
                    records, trail, follow=follow, embed=lambda record: embed([record])
                )
            except RequeueError:
                # The process lives: no row is to be blamed for whatever ends the next one.
                follow(trail)
                raise
        return join_outcomes(parts, form, self.engine.loaded.spec.dim), poison

    def _check_alphabet(self, manifest: Manifest) -> None:
        family = self.engine.loaded.spec.family
        if manifest.alphabet != family.alphabet.name:
            raise UserError(
                f"The input was read as {manifest.alphabet}, but {manifest.model} is "
                f"{family.name} and takes {family.alphabet.name}. Submit from a machine that sees "
                "the model's folder, or by the model's name."
            )

    def _records(self, batch: Batch, earlier: Mapping[int, Instability]) -> list[Record]:
        records = decode_batch(self._retrying(lambda: self.store.get(batch.key)))
        if batch.previous_rung is not None:
            records = [record for record in records if record.row in earlier]
        expected = batch.records if batch.previous_rung is None else len(earlier)
        if len(records) != expected:
            raise ValueError(f"{batch.key} has {len(records)} of {expected} records")
        return records

    def _put_on_record(self, batch: Batch, rows: tuple[Instability, ...]) -> None:
        """Add rows to those of the batch that have no numbers."""
        quarantine = Quarantine(job=batch.job, batch=batch.index, rows=rows)
        self._retrying(lambda: add_to_quarantine(self.store, quarantine))

    def _retrying(self, action: Callable[[], T], pauses: Iterable[float] | None = None) -> T:
        if pauses is None:
            pauses = backoff(STORE_RETRIES, first=STORE_PAUSE, longest=LONGEST_PAUSE)
        for pause in pauses:
            try:
                return action()
            except (StoreError, RedisError) as error:
                log.warning("%s Trying again in %.1f s.", error, pause)
                self.stopping.wait(pause)
                if isinstance(error, StoreError):
                    self._stop_if_asked()
        return action()

    def _renew(self, batch: Batch, owner: str) -> None:
        if not self.ledger.leases.renew(batch, owner=owner):
            raise LeaseLostError

    def _stop_if_not_ours(self, owner: str) -> None:
        self._stop_if_asked()
        if self.heartbeat.is_lost(owner):
            raise LeaseLostError

    def _stop_if_asked(self) -> None:
        if self.stopping.is_set():
            raise RequeueError("this worker is stopping")
