"""A benchmark's description of its machine."""

import pytest
import torch

from benchmarks.machine import device_or_exit


def test_a_benchmark_that_needs_a_gpu_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        device_or_exit("cuda")
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "This benchmark needs an NVIDIA GPU, and PyTorch finds none here.\n"
    )


def test_a_benchmark_on_a_cpu_needs_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_or_exit("cpu").type == "cpu"
