"""The hardware by which batches are sized, before and while there are workers."""

import pytest

from common.ledger.workers import WorkerInfo
from common.model_specs import MODELS
from common.rungs import Rung
from producer.input.batches import CPU_FLOPS, batch_tokens
from producer.submission.submit import Hardware

#: Seconds that a batch may take a CPU without any worker: short of what a scale-up is for.
BEARABLE_SECONDS = 60

CPU = WorkerInfo(
    name="w", model="m", weights=None, device="CPU", precision=Rung.FP32, queues=("m.fp32",)
)
GPU = CPU.model_copy(update={"device": "NVIDIA H200", "precision": Rung.FP16})


@pytest.mark.parametrize("rung", [Rung.FP16, Rung.BF16])
def test_a_job_in_half_precision_waits_for_gpus(rung):
    assert Hardware.of_fleet([], rung) == Hardware(on_gpu=True, workers=1)


def test_a_job_in_fp32_without_workers_waits_for_cpus():
    assert Hardware.of_fleet([], Rung.FP32) == Hardware(on_gpu=False, workers=1)


@pytest.mark.parametrize("rung", [Rung.FP16, Rung.FP32])
def test_workers_that_are_there_decide_whatever_the_precision(rung):
    assert Hardware.of_fleet([CPU, CPU], rung) == Hardware(on_gpu=False, workers=2)
    assert Hardware.of_fleet([CPU, GPU], rung) == Hardware(on_gpu=True, workers=2)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.parameters < 3e9])
def test_a_cpu_that_starts_for_such_a_job_ends_its_batches_soon(name):
    spec, hardware = MODELS[name], Hardware.of_fleet([], Rung.FP32)
    tokens = batch_tokens(spec, on_gpu=hardware.on_gpu, workers=hardware.workers)
    seconds = tokens * 2 * spec.parameters / CPU_FLOPS
    assert seconds <= BEARABLE_SECONDS
