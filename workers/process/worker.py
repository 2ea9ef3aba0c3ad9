"""One worker process: one device, one loaded model, one Celery consumer with a pool of threads.

The supervisor starts it as ``python -m workers.process MODEL PRECISION``, with its GPU in
``CUDA_VISIBLE_DEVICES`` and its broker and store in the environment.
"""

import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NoReturn

import torch
from celery import Celery
from redis.exceptions import RedisError

from common.errors import UserError
from common.ledger.claims import ReleaseReason
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.logs import identify
from common.memory import explained, is_out_of_memory
from common.model_digest import identities
from common.model_source import ModelSource
from common.rungs import PrecisionChoice, Rung, model_precision, served_steps
from common.settings import Settings
from common.store import open_store
from common.weights.local import digest_of, local_weights
from common.wire.celery_app import make_celery, publish, publish_next
from common.wire.redis_client import connect, redis_client
from workers.batches.counting import counted
from workers.batches.lease_renewer import ANSWER_SECONDS, LeaseRenewer
from workers.batches.meter import Meter
from workers.batches.runner import BatchRunner
from workers.engine.device import DeviceLostError
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import LoadedModel, load_model
from workers.process.entry import loaded_info, start_metrics, worker_info
from workers.process.environment import (
    HEARTBEAT_FILE,
    PROCESS_READY_FILE,
    TRACE_FILE,
    file_of,
)
from workers.process.exit_codes import EXIT_DEVICE_LOST, EXIT_DEVICE_UNUSABLE, EXIT_USER_ERROR
from workers.process.heartbeat import Heartbeat
from workers.process.waiting import once_available
from workers.runtime import trace, watchdog
from workers.runtime.memory import limit_memory, used_and_total_bytes
from workers.runtime.watchdog import Watchdog
from workers.transport.consumer import consume
from workers.transport.guard import Guard, install_guard
from workers.validation.record import refuse_unfit

log = logging.getLogger("workers")

#: Seconds after which loading a model counts as hung. The largest, over a slow line, takes less.
LOAD_SECONDS = 7200.0

#: Seconds after which a thread gives the interpreter to one that waits for it. The thread that
#: feeds the GPU waits for it after every kernel, while others read and write batches in Python.
SWITCH_SECONDS = 0.0005


class DeviceUnusableError(Exception):
    """A GPU that PyTorch cannot use."""


def serve(model: str, choice: PrecisionChoice) -> int:
    """Load the model and run batches until told to stop; return the exit code.

    Raises:
        UserError: the broker, the store or the weights cannot be used.
    """
    settings = Settings.read()
    source, device = ModelSource.parse(model), available_device()
    heartbeat = Heartbeat(file_of(HEARTBEAT_FILE))
    heartbeat.start()
    heartbeat.stage = "waiting for Redis"
    ledger = Ledger(connect(settings.broker_url, as_worker=True, wait=True))
    heartbeat.stage = "starting"
    if device == "cuda" and settings.gpu_memory is not None:
        limit_memory(settings.gpu_memory)
    precision = model_precision(choice, on_gpu=device == "cuda")
    keys = settings.message_keys()
    log.info("%s", keys)
    host = settings.worker_name or socket.gethostname()
    info = worker_info(source, device, precision, keys, host, ledger.now().timestamp())
    identify(worker=info.name)
    log.info("Loading %s in %s on %s.", source.text, info.precision, info.device)
    guard = Guard(ledger, keys, info.name)
    app = make_celery(settings.broker_url, list(info.queues), keys)
    install_guard(app, guard)
    meter = Meter(lambda: used_and_total_bytes(torch.device(device)))
    renewer = start_renewer(settings, info, guard, meter)
    heartbeat.watch(renewer, lambda: guard.has_turned)
    process_watchdog = Watchdog()
    process_watchdog.start()
    try:
        began = time.monotonic()

        def load() -> Engine:
            heartbeat.stage = f"loading {source.text}"
            with watchdog.limit(f"Loading {source.text}", LOAD_SECONDS):
                return load_engine(
                    source, device, info.precision, settings.store, renewer.tell_stage
                )

        def tell_waiting() -> None:
            heartbeat.stage = f"waiting for the server that has {source.text}"
            renewer.tell_stage("waiting")

        engine = once_available(load, tell_waiting)
        info = loaded_info(info, engine)
        start_metrics(
            info, device, seconds=time.monotonic() - began, clients=(ledger, renewer.ledger)
        )
        meter.start()
        renewer.update(info)
        runner = BatchRunner(
            store=open_store(settings.required_store()),
            ledger=ledger,
            engine=engine,
            renewer=renewer,
            publish=lambda batch: publish(app, source, [batch]),
            publish_next=lambda batch: publish_next(app, ledger.redis, batch),
            on_device_lost=exit_device_lost,
            name=info.name,
            stopping=threading.Event(),
            meter=meter,
        )
        guard.expect_turns()
        heartbeat.stage = None
        return run_batches(app, runner, info, process_watchdog)
    finally:
        renewer.stop()


def available_device() -> str:
    """Return ``cuda``, or ``cpu`` in a process that was given no GPU."""
    if torch.cuda.is_available():
        return "cuda"
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpu:
        # On the CPU instead, batches that were cut for a GPU would take hours.
        raise DeviceUnusableError(
            f"GPU {gpu} cannot be used by PyTorch {torch.__version__}: {cuda_problem()}."
        )
    return "cpu"


def cuda_problem() -> str:
    """Return why CUDA cannot be used, as PyTorch says it."""
    if torch.version.cuda is None:
        return "it was built without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0].rstrip(".")
    return "it finds no device"


def start_renewer(settings: Settings, info: WorkerInfo, guard: Guard, meter: Meter) -> LeaseRenewer:
    """Return a running lease renewer with a connection of its own."""
    redis = redis_client(settings.broker_url, answer_seconds=ANSWER_SECONDS, retries=0)
    renewer = LeaseRenewer(Ledger(redis), info, guard.idle_seconds, meter)
    renewer.start()
    return renewer


def load_engine(
    source: ModelSource,
    device: str,
    precision: Rung,
    store_url: str | None,
    on_stage: Callable[[str], None],
) -> Engine:
    """Load a model and warm it up.

    Args:
        on_stage: called with the name of each stage as it begins.

    Raises:
        UserError: the weights cannot be loaded, or a validation found them unfit for this precision
            on this kind of device.
    """
    loaded = load_with_digest(source, device, precision, on_stage)
    refuse_unfit(loaded.fingerprint, precision, device, store_url)
    if source.is_random:
        log.warning("%s: random weights. The embeddings are meaningless.", source.text)
    on_stage("warming up")
    engine = Engine(loaded)
    engine.warm_up()
    return engine


def load_with_digest(
    source: ModelSource, device: str, precision: Rung, on_stage: Callable[[str], None]
) -> LoadedModel:
    """Load a model while its files are hashed.

    Raises:
        RuntimeError: the files changed meanwhile; the supervisor starts this process again.
        UserError: the weights cannot be loaded.
    """
    if not source.is_path and not source.is_random:
        on_stage("downloading")  # or finding
    local = local_weights(source)
    on_stage("loading")
    if local is None:
        return load_model(source, device=device, dtype=DTYPES[precision])
    files = local.files()
    before = identities(files)
    with ThreadPoolExecutor(max_workers=1) as pool:
        digest = pool.submit(digest_of, source, local)
        loaded = load_model(source, device=device, dtype=DTYPES[precision], place=local.path)
        if not digest.done():
            on_stage("hashing")
        found = replace(loaded, model_digest=digest.result())
    if identities(local.files()) != before:
        raise RuntimeError(f"{source.text} changed while it was loaded.")
    return found


def run_batches(
    app: Celery, runner: BatchRunner, info: WorkerInfo, process_watchdog: Watchdog
) -> int:
    """Report readiness and run batches until told to stop; return the exit code."""
    ready_file, trace_file = file_of(PROCESS_READY_FILE), file_of(TRACE_FILE)
    recorder = None if trace_file is None else trace.start(runner.engine.device)
    # Or each collection, of which the records of batches cause many, would look at all objects of
    # PyTorch and the model, while no thread can go on.
    gc.collect()
    gc.freeze()
    if ready_file is not None:
        ready_file.touch()

    def stop() -> None:
        runner.stopping.set()
        process_watchdog.drain(lambda: requeue_held(runner))

    run = counted(runner.run, {rung for _, rung in served_steps(info.precision)})
    code = consume(app, info.queues, info.name, run=run, on_stop=stop)
    if recorder is not None and trace_file is not None:
        recorder.write(trace_file)
    return code


def requeue_held(runner: BatchRunner) -> None:
    """Release and publish the batches that this process has a lease on.

    Their own messages would be redelivered only after the visibility timeout.
    """
    try:
        for lease in runner.renewer.held():
            if lease.release(ReleaseReason.INTERRUPTED):
                runner.publish_next(lease.batch)
                log.warning("Batch %d of %s is requeued.", lease.batch.index, lease.batch.job)
    except RedisError as error:
        log.warning("The ledger did not answer: %s. The leases will expire.", error)


def exit_device_lost(error: DeviceLostError) -> NoReturn:
    """End the process at once: otherwise other threads would fail every batch that they take."""
    log.critical("The device is lost (%s): this process ends, and is started again.", error)
    os._exit(EXIT_DEVICE_LOST)


def main() -> NoReturn:
    """Run the process; an error that the user can correct is one message and exit code 2.

    A lack of memory may pass: after exit code 1 the supervisor starts the process again.
    """
    model, precision = sys.argv[1:]
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        code = serve(model, precision)  # type: ignore[arg-type]
    except UserError as error:
        log.error("%s", error)
        code = EXIT_USER_ERROR
    except DeviceLostError as error:
        exit_device_lost(error)
    except DeviceUnusableError as error:
        log.critical("%s", error)
        code = EXIT_DEVICE_UNUSABLE
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.error("%s", explained(error))
        code = 1
    logging.shutdown()
    # Everything is written and closed. Python's own exit would free PyTorch object by object, which
    # takes half a second.
    os._exit(code)
