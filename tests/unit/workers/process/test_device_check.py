"""Checks of the device: what the driver lists, what PyTorch sees, and the kernel of attention."""

import pytest
import torch

from common.checks.check import Check, Outcome
from common.model_source import ModelSource
from common.model_specs import MODELS
from workers.models.attention.choice import choice_of
from workers.models.kernels import attention as own_kernel
from workers.process.device_check import check_device

H200 = "0, NVIDIA H200, 570.86.15, 143771, 142000, 9.0"


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Return a function that installs a driver which answers so."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def install(answer: str, code: int = 0) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
        script.chmod(0o755)

    return install


def checks(model: str = "esm2_t33_650M_UR50D") -> dict[str, Check]:
    return {check.name: check for check in check_device(ModelSource.parse(model))}


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_machine_without_a_gpu_uses_the_cpu_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = checks()
    assert list(found) == ["torch", "attention"]
    assert found["torch"].outcome is Outcome.WARNING
    assert "a worker uses the CPU" in found["torch"].text
    assert found["attention"].outcome is Outcome.OK
    assert "esm2_t33_650M_UR50D in FP32: sdpa" in found["attention"].text


def test_a_gpu_that_pytorch_cannot_use_is_wrong(driver, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    driver(H200)
    found = checks()
    assert found["gpu 0"].outcome is Outcome.OK
    assert found["gpu 0"].text == (
        "NVIDIA H200, driver 570.86.15, compute capability 9.0, 142000 of 143771 MiB free"
    )
    assert found["torch"].outcome is Outcome.FAILED
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES hides all GPUs" in checks()["torch"].text


def test_a_driver_that_fails_is_said(driver):
    driver("Failed to initialize NVML: Driver/library version mismatch", 18)
    found = checks()["gpu"]
    assert found.outcome is Outcome.FAILED
    assert "Driver/library version mismatch" in found.text


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that makes PyTorch say a compute capability."""

    def make(major: int, minor: int) -> torch.device:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (major, minor))
        return torch.device("cuda", 0)

    return make


def test_an_old_gpu_has_pytorch_s_attention_alone(gpu):
    found = choice_of(MODELS["esm2_t33_650M_UR50D"], gpu(7, 5), torch.float16)
    assert found.kernel == "sdpa"
    assert "7.5 is below the 8.0" in found.why


def test_without_triton_a_library_is_used(gpu, monkeypatch):
    monkeypatch.setattr(own_kernel, "takes", lambda *_: False)
    found = choice_of(MODELS["esm2_t33_650M_UR50D"], gpu(9, 0), torch.float16)
    assert found.kernel in {"flash_attn", "torch.varlen", "sdpa"}


@pytest.mark.parametrize("name", ["esm2_t6_8M_UR50D", "esm2_t33_650M_UR50D", "dnabert_s"])
def test_full_precision_has_pytorch_s_attention(gpu, name):
    assert choice_of(MODELS[name], gpu(9, 0), torch.float32).kernel == "sdpa"
