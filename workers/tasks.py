"""One batch through a worker: claim, fetch, embed, write, complete."""

import logging
import os
import threading
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn, TypeVar

from redis.exceptions import RedisError

from common import __version__, layout
from common.batchfile import decode_batch
from common.errors import UserError
from common.ledger import LEASE_SECONDS, Claim, Ledger
from common.manifest import Manifest, read_manifest
from common.messages import Batch, BatchResult, Status
from common.modeltable import resolve_layers
from common.shard import create_embedding_file
from common.store import Store, StoreError
from workers.engine import DeviceLostError, Engine, Outcome
from workers.heartbeat import Heartbeat

log = logging.getLogger(__name__)

#: Pauses before the store is asked again; the client underneath has its own, shorter retries.
STORE_RETRY_SECONDS = (1.0, 4.0)

#: Attempts after which a batch whose store keeps failing is reported instead of tried again.
MAX_ATTEMPTS = 5

#: Pause of a worker after it met a batch that it must not compute.
LEAVE_SECONDS = 1.0

EXIT_DEVICE_LOST = 70

MEANINGLESS = "random weights: these embeddings mean nothing"

T = TypeVar("T")


class GiveBackError(Exception):
    """The batch was not done, through no fault of its own: its message goes back to the queue."""


class BatchRunner:
    """Runs batches with one engine, one store and one ledger. Called from several threads."""

    def __init__(
        self, *, store: Store, ledger: Ledger, engine: Engine, heartbeat: Heartbeat, name: str
    ) -> None:
        self.store = store
        self.ledger = ledger
        self.engine = engine
        self.heartbeat = heartbeat
        self.name = name
        self.stopping = threading.Event()
        # A job's manifest never changes once it is there.
        self._manifest = lru_cache(maxsize=16)(lambda job: read_manifest(store, job))

    def run(self, batch: Batch) -> None:
        """Run a batch to a result in the ledger, or do nothing if it is not ours to run.

        Raises:
            GiveBackError: the message should go back to the queue.
        """
        owner = f"{self.name}/{uuid.uuid4().hex[:8]}"
        try:
            outcome, attempt = self._claim(batch, owner)
        except RedisError as error:
            raise GiveBackError(f"the ledger did not answer: {error}") from error
        if outcome is not Claim.TAKEN:
            log.info("Batch %d of %s is left alone: %s.", batch.index, batch.job, outcome)
            return
        try:
            with self.heartbeat.holding(batch, owner):
                result = self._result(batch, owner, attempt)
            self.ledger.complete(result, owner=owner)
            log.info("Batch %d of %s: %s.", batch.index, batch.job, summary(result))
        except RedisError as error:
            # Given back while our own lease still stands, it would be dropped as held by another.
            self.stopping.wait(LEASE_SECONDS)
            raise GiveBackError(f"the ledger did not answer: {error}") from error

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

    def _leave_to_others(self, reason: str) -> NoReturn:
        # Those who can do it should find it: do not take it again at once.
        self.stopping.wait(LEAVE_SECONDS)
        raise GiveBackError(reason)

    def _result(self, batch: Batch, owner: str, attempt: int) -> BatchResult:
        try:
            outcome = self._embed(batch)
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
        except UserError as error:
            return self._failure(batch, error)
        except Exception as error:
            log.exception("Batch %d of %s failed.", batch.index, batch.job)
            return self._failure(batch, error)
        return BatchResult(
            job=batch.job,
            index=batch.index,
            rung=batch.rung,
            status=Status.NUMERICAL_INSTABILITY if outcome.unstable else Status.OK,
            worker=self.name,
            precision=self.engine.precision,
            records=len(outcome.embeddings),
            tokens=outcome.tokens,
            seconds=outcome.seconds,
            unstable=outcome.unstable,
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
            status=Status.FAILED,
            worker=self.name,
            error=f"{type(error).__name__}: {error}",
        )

    def _embed(self, batch: Batch) -> Outcome:
        manifest = self._retrying(lambda: self._manifest(batch.job))
        records = decode_batch(self._retrying(lambda: self.store.get(batch.key)))
        if len(records) != batch.records:
            raise ValueError(f"{batch.key} has {len(records)} of {batch.records} records")
        outcome = self.engine.embed(
            records,
            manifest.form,
            context=f"job {batch.job} batch {batch.index} rung {batch.rung}",
            between_packs=self._stop_if_asked,
        )
        self._retrying(lambda: self._write(batch, manifest, outcome))
        return outcome

    def _write(self, batch: Batch, manifest: Manifest, outcome: Outcome) -> None:
        embeddings, loaded = outcome.embeddings, self.engine.loaded
        attributes = {
            "model": loaded.source.text,
            "weights": loaded.fingerprint,
            "layers": resolve_layers(manifest.form.layers, loaded.spec.layers),
            "dim": loaded.spec.dim,
            "pooling": "mean over residues, without <cls> and <eos>",
            "job": batch.job,
            "version": __version__,
            **({"warning": MEANINGLESS} if loaded.source.is_random else {}),
        }
        with (
            self.store.create(layout.shard_key(batch.job, batch.index, batch.rung)) as path,
            create_embedding_file(
                path,
                form=manifest.form,
                records=len(embeddings),
                residues=int(embeddings.lengths.sum()),
                dim=loaded.spec.dim,
                attributes=attributes,
            ) as writer,
        ):
            writer.write(embeddings)

    def _retrying(self, action: Callable[[], T]) -> T:
        for pause in STORE_RETRY_SECONDS:
            try:
                return action()
            except StoreError as error:
                log.warning("%s Trying again in %g s.", error, pause)
                self.stopping.wait(pause)
                self._stop_if_asked()
        return action()

    def _stop_if_asked(self) -> None:
        if self.stopping.is_set():
            raise GiveBackError("this worker is stopping")


def summary(result: BatchResult) -> str:
    if result.status is Status.FAILED:
        return f"failed, {result.error}"
    unstable = f", {len(result.unstable):,} not finite" if result.unstable else ""
    return (
        f"{result.records:,} sequences{unstable}, {result.tokens:,} tokens in "
        f"{result.seconds:.2f} s in {result.precision}"
    )
