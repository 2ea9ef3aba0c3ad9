"""One worker process: one device, one loaded model, one Celery worker with a pool of threads.

Started by the supervisor with ``CUDA_VISIBLE_DEVICES`` set to its GPU, broker and store in the
environment: ``python -m workers.process MODEL PRECISION``.
"""

import logging
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import torch
from celery import Celery
from celery.exceptions import Reject
from celery.signals import worker_shutting_down
from redis.exceptions import RedisError

from common.errors import UserError
from common.ledger.claims import ReleaseReason
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.model_specs import ModelSource
from common.rungs import PrecisionChoice, Rung, model_precision, served_steps
from common.settings import Settings
from common.store import open_store
from common.wire.celery_app import EMBED_TASK, make_celery, publish
from common.wire.messages import Batch, Priority
from common.wire.queues import queue_name
from common.wire.redis_client import connect, redis_client
from workers.batches.lease_renewer import ANSWER_SECONDS, LeaseRenewer
from workers.batches.retry_policy import RequeueError
from workers.batches.runner import BatchRunner
from workers.engine.engine import DTYPES, DeviceLostError, Engine
from workers.models.loading import load_model
from workers.process.liveness import BEAT_FILE
from workers.process.supervisor import READY_FILE
from workers.runtime import trace, watchdog
from workers.runtime.device import device_name
from workers.runtime.memory import limit_memory
from workers.runtime.watchdog import Watchdog
from workers.transport.guard import Guard, place_guard
from workers.transport.task_events import EventsTogether
from workers.validation.record import record_stores, refusal

log = logging.getLogger("workers")

#: Environment variable with the path of the file for what the process did when (``worker bench``).
TRACE_FILE = "VIRNUCPRO_TRACE"

#: While one batch computes, the next is fetched and the last is written: 3 or 4 threads keep a
#: GPU busy all the time.
THREADS = 4

#: Seconds after which loading a model hangs: the largest, over a slow line, take less.
LOAD_SECONDS = 7200.0


#: Exit code of a process whose device is lost.
EXIT_DEVICE_LOST = 70


def serve(model: str, choice: PrecisionChoice) -> int:
    """Load the model, then take batches until told to stop. Returns the exit code.

    Raises:
        UserError: no broker, no store, or weights that cannot be had.
    """
    settings = Settings.read()
    ledger = Ledger(connect(settings.broker_url))
    keys = settings.message_keys()
    source = ModelSource.parse(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES"):
        # Not to be served by a CPU instead, which would hold large batches for hours.
        raise RuntimeError(f"GPU {os.environ['CUDA_VISIBLE_DEVICES']} cannot be used by PyTorch.")
    precision = model_precision(choice, on_gpu=device == "cuda")
    queues = tuple(
        queue_name(source, *step, priority)
        for priority in Priority
        for step in served_steps(precision)
    )
    name = f"{device}{os.environ.get('CUDA_VISIBLE_DEVICES', '')}-{os.getpid()}"
    if device == "cuda" and settings.gpu_memory is not None:
        limit_memory(settings.gpu_memory)
    log.info("Loading %s in %s on %s.", source.text, precision, device_name(device))
    info = WorkerInfo(
        name=f"{name}@{socket.gethostname()}",
        model=source.text,
        weights=None,
        device=device_name(device),
        precision=precision,
        queues=queues,
    )
    beats = Ledger(redis_client(settings.broker_url, answer_seconds=ANSWER_SECONDS, retries=0))
    beat_file = Path(os.environ[BEAT_FILE]) if BEAT_FILE in os.environ else None
    heartbeat = LeaseRenewer(beats, info, beat_file)
    heartbeat.start()
    dog = Watchdog()
    dog.start()
    try:
        with watchdog.limit(f"Loading {source.text}", LOAD_SECONDS):
            engine = load_engine(source, device, precision, settings.store)
        heartbeat.update(info.model_copy(update={"weights": engine.loaded.fingerprint}))
        app = make_celery(settings.broker_url, list(queues), keys)
        place_guard(app, Guard(ledger, keys, info.name).check)
        runner = BatchRunner(
            store=open_store(settings.required_store()),
            ledger=ledger,
            engine=engine,
            renewer=heartbeat,
            publish=lambda batch: publish(app, source, [batch]),
            on_device_lost=exit_device_lost,
            name=info.name,
            stopping=threading.Event(),
        )
        recorder = trace.start(engine.device) if TRACE_FILE in os.environ else None
        if READY_FILE in os.environ:
            Path(os.environ[READY_FILE]).touch()
        code = consume(app, queues, runner, name, dog)
        if recorder is not None:
            recorder.write(Path(os.environ[TRACE_FILE]))
        return code
    finally:
        heartbeat.stop()


def load_engine(source: ModelSource, device: str, precision: Rung, store_url: str | None) -> Engine:
    """Load a model and get it ready.

    Raises:
        UserError: no weights, or weights that are on record as unfit for this precision on this
            kind of device.
    """
    loaded = load_model(source, device=device, dtype=DTYPES[precision])
    if precision is not Rung.FP32:
        reason = refusal(
            loaded.fingerprint, precision, device_name(device), record_stores(store_url)
        )
        if reason is not None:
            raise UserError(reason)
    if source.is_random:
        log.warning("%s: RANDOM WEIGHTS. The embeddings mean nothing.", source.text)
    engine = Engine(loaded)
    engine.warm_up()
    return engine


def consume(
    app: Celery, queues: tuple[str, ...], runner: BatchRunner, name: str, dog: Watchdog
) -> int:
    """Run the Celery worker until it is told to stop."""

    @app.task(name=EMBED_TASK)  # type: ignore[untyped-decorator]
    def embed(**message: Any) -> None:
        batch = Batch.model_validate(message)  # as the guard has seen that it can be
        try:
            runner.run(batch)
        except RequeueError as error:
            log.warning("Batch %d of %s is requeued: %s.", batch.index, batch.job, error)
            raise Reject(str(error), requeue=True) from None

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
    def stop(**_: Any) -> None:
        runner.stopping.set()
        dog.drain(lambda: requeue_held(runner))

    app.steps["consumer"].add(EventsTogether)
    logging.getLogger("celery.app.trace").addFilter(is_no_reject)
    for twice in ("celery.worker.strategy", "celery.app.trace"):
        # That a task began and ended well: the runner has its own line on every batch.
        logging.getLogger(twice).setLevel(logging.WARNING)
    options = ["--pool=threads", f"--concurrency={THREADS}", f"--hostname={name}@%h"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel=INFO"]
    log.info("Ready: taking batches from %s.", ", ".join(queues))
    try:
        app.worker_main(["--quiet", "worker", f"--queues={','.join(queues)}", *options, *quiet])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def requeue_held(runner: BatchRunner) -> None:
    """Release and publish the batches that this process has a lease on.

    Their own messages would be redelivered only after the visibility timeout.
    """
    try:
        for lease in runner.renewer.held():
            if lease.release(ReleaseReason.INTERRUPTED):
                runner.publish(lease.batch)
                log.warning("Batch %d of %s is requeued.", lease.batch.index, lease.batch.job)
    except RedisError as error:
        log.warning("The ledger did not answer: %s. The leases will expire.", error)


def exit_device_lost(error: DeviceLostError) -> NoReturn:
    """End the process at once: otherwise other threads would fail every batch that they take."""
    log.critical("The device is lost (%s): this process ends, and is started again.", error)
    os._exit(EXIT_DEVICE_LOST)


def is_no_reject(record: logging.LogRecord) -> bool:
    """Whether Celery's log has more to say than that a batch went back, with a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], Reject))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    model, precision = sys.argv[1:]
    try:
        sys.exit(serve(model, precision))  # type: ignore[arg-type]
    except UserError as error:
        log.error("%s", error)
        sys.exit(2)


if __name__ == "__main__":
    main()
