"""One batch through a worker: claim, fetch, embed, write, complete."""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import NoReturn, TypeVar

from redis.exceptions import RedisError

from common.batchfile import Record, decode_batch
from common.errors import UserError
from common.ledger import LEASE_SECONDS, Claim, Ledger
from common.manifest import Manifest, read_manifest
from common.messages import Batch, BatchResult, Instability, Status, retry_of
from common.quarantine import Quarantine, write_quarantine
from common.rungs import NEXT_RUNG
from common.store import Store, StoreError
from workers import watchdog
from workers.engine import DeviceLostError, Engine, Outcome
from workers.heartbeat import Heartbeat
from workers.shards import write_shard
from workers.stability import describe_instability

log = logging.getLogger(__name__)

#: Pauses before the store is asked again; the client underneath has its own, shorter retries.
STORE_RETRY_SECONDS = (1.0, 4.0)

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


class NotOursError(Exception):
    """The batch was taken over while it was computed: whoever has it now writes it. Or its job was
    cancelled.
    """


class GiveBackError(Exception):
    """The batch was not done, through no fault of its own: its message goes back to the queue."""


class BatchRunner:
    """Runs batches with one engine, one store and one ledger. Called from several threads."""

    def __init__(
        self,
        *,
        store: Store,
        ledger: Ledger,
        engine: Engine,
        heartbeat: Heartbeat,
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
        # What is used of a job's manifest never changes: the job's name is made of it.
        self._manifest = lru_cache(maxsize=16)(lambda job: read_manifest(store, job))

    def run(self, batch: Batch) -> None:
        """Run a batch to a result in the ledger, or do nothing if it is not ours to run.

        Raises:
            GiveBackError: the message should go back to the queue.
        """
        owner = f"{self.name}/{uuid.uuid4().hex[:8]}"
        try:
            with watchdog.stage("claim", LEDGER_SECONDS):
                outcome, attempt = self._claim(batch, owner)
        except RedisError as error:
            raise GiveBackError(f"the ledger did not answer: {error}") from error
        if outcome is not Claim.TAKEN:
            log.info("Batch %d of %s is left alone: %s.", batch.index, batch.job, outcome)
            return
        try:
            earlier = self._earlier(batch)
            if earlier is None:
                log.info("Batch %d of %s: nothing is left to retry.", batch.index, batch.job)
                self.ledger.release(batch, owner=owner)
                return
            with self.heartbeat.holding(batch, owner):
                result = self._result(batch, owner, attempt, earlier)
            with watchdog.stage("complete", LEDGER_SECONDS):
                self.ledger.complete(result, owner=owner)
        except NotOursError:
            log.warning(
                "Batch %d of %s is dropped: taken over, or cancelled.", batch.index, batch.job
            )
            # If it is ours still, it need not wait for the lease to run out should it be resumed.
            with suppress(RedisError):
                self.ledger.release(batch, owner=owner)
            return
        except RedisError as error:
            # Given back while our own lease still stands, it would be dropped as held by another.
            self.stopping.wait(LEASE_SECONDS)
            raise GiveBackError(f"the ledger did not answer: {error}") from error
        log.info("Batch %d of %s: %s.", batch.index, batch.job, summary(result))
        if result.next is not None and not result.stops_job:
            self._pass_on(batch, result)

    def _pass_on(self, batch: Batch, result: BatchResult) -> None:
        """Queue the rows that were not finite at the next rung; one message too many is no harm."""
        try:
            self.publish(retry_of(batch, result))
        except RedisError as error:
            # The ledger knows that they are to be done: whoever looks after lost work queues them.
            log.warning("The retry of batch %d could not be queued: %s.", result.index, error)

    def _claim(self, batch: Batch, owner: str) -> tuple[Claim, int]:
        self._stop_if_asked()
        loaded = self.engine.loaded
        if batch.model != loaded.source.text:
            self._leave_to_others(f"this worker serves {loaded.source.text}")
        outcome, attempt = self.ledger.claim(batch, owner=owner, weights=loaded.fingerprint)
        if outcome is Claim.OTHER_WEIGHTS:
            self._leave_to_others(
                f"its job began with other weights than {loaded.fingerprint}, which this worker "
                f"has of {loaded.source.text}"
            )
        return outcome, attempt

    def _earlier(self, batch: Batch) -> Mapping[int, Instability] | None:
        """What was seen of the rows that a retry is about; None if its ledger knows of none."""
        if batch.after is None:
            return {}
        result = self.ledger.result(batch.job, batch.index, batch.after)
        if result is None or result.next is not batch.rung:
            return None
        return {bad.row: bad for bad in result.unstable}

    def _leave_to_others(self, reason: str) -> NoReturn:
        # Those who can do it should find it: do not take it again at once.
        self.stopping.wait(LEAVE_SECONDS)
        raise GiveBackError(reason)

    def _result(
        self, batch: Batch, owner: str, attempt: int, earlier: Mapping[int, Instability]
    ) -> BatchResult:
        try:
            outcome = self._embed(batch, owner, earlier)
        except GiveBackError:
            self.ledger.release(batch, owner=owner)
            raise
        except StoreError as error:
            if attempt < MAX_ATTEMPTS:
                self.ledger.release(batch, owner=owner)
                raise GiveBackError(f"attempt {attempt}: {error}") from error
            return self._failure(batch, error)
        except DeviceLostError as error:
            if attempt < MAX_ATTEMPTS:
                self.ledger.release(batch, owner=owner)
            else:
                self.ledger.complete(self._failure(batch, error), owner=owner)
            self.end_process(error)
        except (NotOursError, RedisError):
            raise
        except UserError as error:
            return self._failure(batch, error)
        except Exception as error:
            log.exception("Batch %d of %s failed.", batch.index, batch.job)
            return self._failure(batch, error)
        return BatchResult(
            job=batch.job,
            index=batch.index,
            rung=batch.rung,
            after=batch.after,
            status=Status.NUMERICAL_INSTABILITY if outcome.unstable else Status.OK,
            worker=self.name,
            precision=outcome.precision,
            records=len(outcome.embeddings),
            tokens=outcome.tokens,
            seconds=outcome.seconds,
            unstable=outcome.unstable,
            next=NEXT_RUNG[outcome.precision] if outcome.unstable else None,
            stops_job=bool(outcome.unstable) and self.ledger.stops_at_instability(batch.job),
        )

    def end_process(self, error: Exception) -> NoReturn:
        """End at once: other threads would fail every batch that they take."""
        log.critical("The device is lost (%s): this process ends, the next one begins.", error)
        os._exit(EXIT_DEVICE_LOST)

    def _failure(self, batch: Batch, error: Exception) -> BatchResult:
        return BatchResult(
            job=batch.job,
            index=batch.index,
            rung=batch.rung,
            after=batch.after,
            status=Status.FAILED,
            worker=self.name,
            # What was written for the user speaks for itself.
            error=str(error)
            if isinstance(error, UserError)
            else f"{type(error).__name__}: {error}",
        )

    def _embed(self, batch: Batch, owner: str, earlier: Mapping[int, Instability]) -> Outcome:
        with watchdog.stage("fetch", STORE_SECONDS):
            manifest = self._retrying(lambda: self._manifest(batch.job))
            self._check_alphabet(manifest)
            records = self._records(batch, earlier)
        outcome = self.engine.embed(
            records,
            manifest.form,
            rung=batch.rung,
            between_packs=lambda: self._stop_if_not_ours(owner),
        )
        # A shard of other rows must not replace the one that was counted.
        if not self.ledger.renew(batch, owner=owner):
            raise NotOursError
        outcome = replace(outcome, unstable=with_history(outcome.unstable, earlier))
        loaded = self.engine.loaded
        with watchdog.stage("write", STORE_SECONDS):
            if outcome.unstable:
                self._note_instability(batch, outcome)
            self._retrying(lambda: write_shard(self.store, batch, manifest.form, loaded, outcome))
        return outcome

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
        if batch.after is not None:
            records = [record for record in records if record.row in earlier]
        expected = batch.records if batch.after is None else len(earlier)
        if len(records) != expected:
            raise ValueError(f"{batch.key} has {len(records)} of {expected} records")
        return records

    def _note_instability(self, batch: Batch, outcome: Outcome) -> None:
        """Say what was seen, and put on record the rows that no rung could embed."""
        where = f"job {batch.job} batch {batch.index} rung {batch.rung}"
        after = NEXT_RUNG[outcome.precision]
        log.warning("%s", describe_instability(where, outcome.unstable, after))
        if after is None:
            quarantine = Quarantine(job=batch.job, batch=batch.index, rows=outcome.unstable)
            self._retrying(lambda: write_quarantine(self.store, quarantine))

    def _retrying(self, action: Callable[[], T]) -> T:
        for pause in STORE_RETRY_SECONDS:
            try:
                return action()
            except StoreError as error:
                log.warning("%s Trying again in %g s.", error, pause)
                self.stopping.wait(pause)
                self._stop_if_asked()
        return action()

    def _stop_if_not_ours(self, owner: str) -> None:
        self._stop_if_asked()
        if self.heartbeat.is_lost(owner):
            raise NotOursError

    def _stop_if_asked(self) -> None:
        if self.stopping.is_set():
            raise GiveBackError("this worker is stopping")


def summary(result: BatchResult) -> str:
    if result.status is Status.FAILED:
        return f"failed, {result.error}"
    unstable = ""
    if result.unstable:
        where = "quarantined" if result.next is None else f"on to {result.next}"
        unstable = f", {len(result.unstable):,} not finite: {where}"
    return (
        f"{result.records:,} sequences in {result.precision}, {result.tokens:,} tokens in "
        f"{result.seconds:.2f} s{unstable}"
    )


def with_history(
    unstable: Iterable[Instability], earlier: Mapping[int, Instability]
) -> tuple[Instability, ...]:
    """What was seen of each row, at earlier rungs too."""
    return tuple(
        bad.model_copy(update={"seen": earlier[bad.row].seen | bad.seen})
        if bad.row in earlier
        else bad
        for bad in unstable
    )
