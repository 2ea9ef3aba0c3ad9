"""The GPUs of this machine: which the driver lists, and why it lists none."""

import os
from pathlib import Path

import pytest

from common.errors import UserError
from common.local.gpus import visible_gpus, why_no_gpu
from workers.cli.options import chosen_gpus


@pytest.fixture
def driver(monkeypatch, tmp_path):
    """Puts a program in place of nvidia-smi, of which no machine of the tests has one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def install(script: str) -> None:
        program = Path(tmp_path, "nvidia-smi")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def test_the_gpus_that_the_driver_lists_are_found(driver):
    driver("echo 0; echo 1")
    assert visible_gpus() == chosen_gpus("all") == chosen_gpus("required") == ["0", "1"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (
            "echo Failed to initialize NVML >&2; exit 9",
            "nvidia-smi says: Failed to initialize NVML",
        ),
        ("exit 0", "nvidia-smi says: nothing"),
    ],
)
def test_a_required_gpu_that_is_not_there_is_an_error_that_says_why(driver, script, why):
    driver(script)
    assert why_no_gpu() == why
    with pytest.raises(UserError, match=why):
        chosen_gpus("required")
    assert chosen_gpus("all") == []


def test_a_machine_without_a_driver_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_no_gpu() == "there is no nvidia-smi"


def test_gpus_that_the_environment_hides_are_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES names none"):
        chosen_gpus("required")
