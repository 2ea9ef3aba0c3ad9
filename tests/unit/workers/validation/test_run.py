"""The run behind ``worker validate``: PyTorch's warnings do not reach the user."""

import warnings

import pytest
import torch

from common.errors import UserError
from common.model_source import ModelSource
from common.rungs import Rung
from workers.validation import run

SOURCE = ModelSource("random:esm2_t6_8M_UR50D")


def test_pytorchs_advice_is_not_passed_on(monkeypatch):
    def measure(*_: object) -> None:
        warnings.warn("TensorFloat32 tensor cores are available but not enabled.", stacklevel=1)

    monkeypatch.setattr(run, "measure", measure)
    with warnings.catch_warnings(record=True) as seen:
        run.measure_or_explain(SOURCE, Rung.FP32, "cpu", 2)
    assert seen == []


def test_a_device_that_is_too_small_is_named(monkeypatch):
    def measure(*_: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 12 GiB.\nSee the documentation.")

    monkeypatch.setattr(run, "measure", measure)
    with pytest.raises(UserError, match=r"fp32 does not fit CPU \(Tried to allocate 12 GiB\.\)"):
        run.measure_or_explain(SOURCE, Rung.FP32, "cpu", 2)
