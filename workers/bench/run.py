"""The measurement behind ``worker bench``: the model alone, then the worker."""

import gc
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from common.embeddings.writer import shard_bytes
from common.errors import UserError
from common.job.output_form import Include, OutputForm
from common.local.fleet import check_installed
from common.model_source import RANDOM_PREFIX, ModelSource
from common.model_specs import MODELS, ModelSpec
from common.paths import check_has_folder, check_replaceable
from common.rungs import PrecisionChoice, Rung, model_precision
from workers.bench.fleet import FleetSpeed, Plan, measure_fleet
from workers.bench.forward import PackSpeed, measure_forward
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model
from workers.runtime.memory import limit_memory
from workers.runtime.trace import DEVICE

log = logging.getLogger(__name__)

#: The beginning of a trace, by which an earlier one is known.
TRACE_SIGNATURE = b'{"traceEvents": ['

#: The size of a batch, as the producer cuts them: a second's work, and upper bounds of its tokens
#: and of its shard's bytes.
BATCH_SECONDS, LARGEST_BATCH_TOKENS, LARGEST_SHARD_BYTES = 1.0, 3_000_000, 256e6

#: Smallest number of batches per worker: four run before the measurement begins, and four after it
#: ends.
FEWEST_BATCHES = 16


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of ``worker bench``."""

    model: str
    precision: PrecisionChoice
    gpus: Sequence[str]  # none: the CPU
    seconds: float
    per_residue: bool
    store: Path | None
    trace: Path | None
    gpu_memory: float | None


@dataclass(frozen=True)
class Measured:
    """The speeds of one machine, in tokens per second."""

    spec: ModelSpec
    precision: Rung
    packs: list[PackSpeed]
    fleet: FleetSpeed
    busy: float | None  # share of the time in which the device had a pack; None: not traced

    @property
    def best(self) -> PackSpeed:
        return max(self.packs, key=lambda pack: pack.tokens_per_second)


def run(request: Request) -> Measured:
    """Time the model alone, then a worker.

    Raises:
        UserError: the model cannot be loaded, or a package is not installed.
    """
    check_installed()
    check_folders(request)
    source = weights_for(request.model)
    device = "cuda" if request.gpus else "cpu"
    # Before CUDA starts, so that the model alone runs on the worker's GPU.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(request.gpus[:1])
    precision = model_precision(request.precision, on_gpu=device == "cuda")
    if device == "cuda" and request.gpu_memory is not None:
        limit_memory(request.gpu_memory)
    engine = Engine(load_model(source, device=device, dtype=DTYPES[precision]))
    engine.warm_up()
    log.info("Timing the model alone, in packs of several sizes.")
    packs, spec = measure_forward(engine), engine.loaded.spec
    # The worker needs the memory.
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        # Only a single worker process can write the file of the trace.
        trace = Path(folder, "trace.json") if len(request.gpus) < 2 else None
        store = request.store or Path(folder)
        log.info("Timing a worker between a queue and a store, for %g seconds.", request.seconds)
        fleet = measure_fleet(plan_of(request, source, spec, precision, packs), store, trace)
        if trace and request.trace:
            save_trace(trace, request.trace)
        return Measured(spec, precision, packs, fleet, busy_share(trace) if trace else None)


def check_folders(request: Request) -> None:
    """Check before the work that files can be written after it.

    Raises:
        UserError: a folder does not exist, a file of another kind would be replaced, or several
            workers would write one trace.
    """
    if request.store is not None and not request.store.is_dir():
        raise UserError(f"--store {request.store}: name a folder that exists.")
    if request.trace is None:
        return
    if len(request.gpus) > 1:
        raise UserError("--trace shows one worker: give --gpus one number.")
    check_has_folder(request.trace, "--trace")
    check_replaceable(request.trace, TRACE_SIGNATURE, "--trace")


def save_trace(trace: Path, path: Path) -> None:
    """Copy the worker's trace to the file asked for.

    Raises:
        UserError: it cannot be written, or another file has appeared there.
    """
    check_replaceable(path, TRACE_SIGNATURE, "--trace")
    try:
        shutil.copyfile(trace, path)
    except OSError as error:
        raise UserError(f"--trace {path} cannot be written: {error}.") from error


def weights_for(model: str) -> ModelSource:
    """Return random weights for a name: as fast as trained ones, without a download."""
    source = ModelSource.parse(model)
    return ModelSource(RANDOM_PREFIX + source.text) if source.text in MODELS else source


def plan_of(
    request: Request, source: ModelSource, spec: ModelSpec, rung: Rung, packs: list[PackSpeed]
) -> Plan:
    """Return the batches that keep the workers busy for the time asked for."""
    speed = max(pack.tokens_per_second for pack in packs)
    include: tuple[Include, ...] = ("mean", "per_residue") if request.per_residue else ("mean",)
    form = OutputForm(include=include, max_residues=spec.family.max_residues)
    _, bytes_per_residue = shard_bytes(form, spec.dim)
    seconds = min(BATCH_SECONDS, request.seconds / FEWEST_BATCHES)
    tokens = min(seconds * speed, LARGEST_BATCH_TOKENS)
    if request.per_residue:
        tokens = min(tokens, LARGEST_SHARD_BYTES / bytes_per_residue)
    workers = max(1, len(request.gpus))
    return Plan(
        source=source,
        spec=spec,
        rung=rung,
        form=form,
        batches=max(FEWEST_BATCHES * workers, int(workers * request.seconds * speed / tokens)),
        batch_tokens=int(tokens),
        gpus=",".join(request.gpus) or "none",
        gpu_memory=request.gpu_memory,
    )


def busy_share(trace: Path) -> float:
    """Return the share of time with a pack on the device, from its first pack to its last."""
    events = json.loads(trace.read_text())["traceEvents"]
    (device,) = (
        event["tid"] for event in events if event["ph"] == "M" and event["args"]["name"] == DEVICE
    )
    spans = [
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event["ph"] == "X" and event["tid"] == device
    ]
    idle = sum(max(0.0, start - end) for (_, end), (start, _) in pairwise(spans))
    return 1 - idle / (spans[-1][1] - spans[0][0])
