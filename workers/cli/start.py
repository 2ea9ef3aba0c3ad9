"""``worker start``: the supervisor of a machine's worker processes."""

import logging
import os
import signal
import sys
from pathlib import Path

from cyclopts.types import PositiveInt

from common import logs
from common.cpus import thread_variables, usable_cpus
from common.errors import UserError
from common.logs import LogFormat, LogLevel, start_logs
from common.model_source import ModelSource
from common.rungs import PrecisionChoice
from common.settings import Settings
from common.store import open_store
from common.wire.address import RedisAddress
from common.wire.first_contact import passing_problem
from workers.cli.options import UserPath, chosen_gpus, require_torch
from workers.process.health import Health
from workers.process.liveness import touch
from workers.process.supervisor import supervise

log = logging.getLogger("workers")


def start(
    *,
    model: str,
    revision: str | None = None,
    gpus: str = "all",
    precision: PrecisionChoice = "auto",
    gpu_memory: float | None = None,
    liveness_file: UserPath | None = None,
    ready_file: UserPath | None = None,
    max_device_losses: PositiveInt | None = None,
    metrics: str | None = None,
    log_format: LogFormat | None = None,
    log_level: LogLevel | None = None,
    broker: str | None = None,
    store: str | None = None,
) -> None:
    """Serve one model on this machine until Ctrl-C or SIGTERM.

    Parameters
    ----------
    model
        Name such as esm2_t33_650M_UR50D, a folder with safetensors, a fair-esm .pt file, either
        also as s3://bucket/key, or random:NAME for random weights. A path must be the one that jobs
        are submitted with.
    revision
        Branch, tag or commit of the model on the Hugging Face hub, also as NAME@REVISION. Jobs are
        taken that were submitted with the same one.
    gpus
        all, which is the CPU where there is no GPU; required, where no GPU, or one that PyTorch
        cannot use, is an error; none for the CPU; or numbers such as 0,1. One process each.
    precision
        auto is FP16 on a GPU and FP32 on a CPU.
    gpu_memory
        Largest number of gigabytes to use of each GPU, if other programs use it too; default:
        VIRNUCPRO_GPU_MEMORY, or all free memory.
    liveness_file
        File to touch every second or more often while all processes are alive, for a liveness
        probe; default: VIRNUCPRO_LIVENESS_FILE.
    ready_file
        File that exists while all processes have loaded the model and take batches, for a readiness
        probe; default: VIRNUCPRO_READY_FILE.
    max_device_losses
        Losses of GPUs within half an hour after which the worker ends, with exit code 70, to be
        replaced; default: VIRNUCPRO_MAX_DEVICE_LOSSES, or 3.
    metrics
        Address for Prometheus and for probes, such as 0.0.0.0:9809 for all interfaces: /metrics,
        /healthz and /readyz of all processes together; default: VIRNUCPRO_METRICS, or none.
    log_format
        text, or json for one JSON object in each line; default: VIRNUCPRO_LOG_FORMAT, or text.
    log_level
        Least level of lines: debug, info, warning or error; default: VIRNUCPRO_LOG_LEVEL, or info.
    broker
        Redis URL; default: VIRNUCPRO_BROKER_URL, or redis://localhost:6379/0.
    store
        Folder or s3://bucket/prefix; default: VIRNUCPRO_STORE.
    """
    # Until the supervisor has handlers of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    start_logs("supervisor", log_format, log_level)
    require_torch()
    settings = Settings.read(
        broker=broker,
        store=store,
        gpu_memory=gpu_memory,
        liveness_file=liveness_file,
        ready_file=ready_file,
        max_device_losses=max_device_losses,
    )
    source = ModelSource.parse(model, revision)
    source.files()  # refuses what cannot be loaded
    health = make_health(settings)
    chosen = chosen_gpus(gpus)
    open_store(settings.required_store())
    problem = passing_problem(RedisAddress.parse(settings.broker_url), as_worker=True)
    if problem is not None:  # the processes wait for it
        log.warning("Waiting for Redis. %s", problem)
    sys.exit(
        supervise(
            [source.text, precision],
            chosen,
            process_environment(settings, processes=max(1, len(chosen))),
            health,
            metrics=settings.metrics if metrics is None else metrics,
            gpus_required=gpus == "required",
            max_device_losses=settings.max_device_losses,
        )
    )


def process_environment(settings: Settings, *, processes: int) -> dict[str, str]:
    """Return the environment of a worker's processes."""
    host_cpus = os.cpu_count() or 1
    environment = {
        **os.environ,
        **logs.as_environment(),
        **thread_variables(os.environ, processes, usable_cpus(), host_cpus),
        "VIRNUCPRO_BROKER_URL": settings.broker_url,
        "VIRNUCPRO_STORE": settings.required_store(),
    }
    if settings.gpu_memory is not None:
        environment["VIRNUCPRO_GPU_MEMORY"] = str(settings.gpu_memory)
    return environment


def make_health(settings: Settings) -> Health:
    """Return the health of a worker that starts, and is not ready.

    Raises:
        UserError: a file that would show it cannot be written.
    """
    require_touchable("--liveness-file", "VIRNUCPRO_LIVENESS_FILE", settings.liveness_file)
    ready_file = settings.ready_file
    require_touchable("--ready-file", "VIRNUCPRO_READY_FILE", ready_file)
    if ready_file is not None:
        if ready_file.stat().st_size or ready_file == settings.liveness_file:
            raise UserError(
                f"--ready-file or VIRNUCPRO_READY_FILE: {ready_file} is another file, and would be "
                "deleted while the worker is not ready: name one of its own."
            )
        ready_file.unlink()
    return Health(settings.liveness_file, ready_file)


def require_touchable(option: str, variable: str, file: Path | None) -> None:
    if file is None:
        return
    named = f"{option} or {variable}: {file}"
    if file.is_dir():  # as it is if the variable is set and empty
        raise UserError(f"{named} is a folder: name a file.")
    if file.is_symlink():
        raise UserError(f"{named} is a link, and would have another file touched: name a file.")
    try:
        touch(file)
    except OSError as error:
        raise UserError(f"{named} cannot be written ({error.strerror}).") from error
