"""ONNX Runtime and OpenVINO on a CPU, with the padded ESM-2 of ``transformers`` as exported.

Both are optional: ``pip install transformers onnx onnxscript onnxruntime openvino``. Batches are
those of ``esm-extract``: sorted by length, padded, at most 4096 tokens. Weights are random.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import Run
from benchmarks.peers import PAD, padded_batches, transformers_model
from common.model_specs import ModelSpec
from common.rungs import Rung

BATCH_TOKENS = 4096

#: Packages without which there is no model to run.
EXPORTERS = ("transformers", "onnx", "onnxscript")


def missing(package: str) -> list[str]:
    """Return the packages without which ``package`` cannot be timed here."""
    return [name for name in (*EXPORTERS, package) if find_spec(name) is None]


class LastHidden(nn.Module):
    """``transformers``' model with one output, the last hidden state ``[B, T, D]``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]


@cache
@torch.no_grad()
def export(spec: ModelSpec, folder: Path) -> Path:
    """Write the model in FP32, with random weights, for batches ``[B, T]`` of any size."""
    path = folder / f"{spec.name}.onnx"
    model = LastHidden(transformers_model(spec)).eval()
    ids = torch.full((2, 16), PAD + 4)
    free = {0: torch.export.Dim("B", min=1), 1: torch.export.Dim("T", min=2)}
    torch.onnx.export(
        model,
        (ids, torch.ones_like(ids)),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["hidden"],
        dynamic_shapes=(free, free),
        dynamo=True,
        verbose=False,
    )
    return path


def inputs(spec: ModelSpec, proteins: list[str]) -> list[dict[str, np.ndarray]]:
    batches = padded_batches(spec, proteins, BATCH_TOKENS, torch.device("cpu"))
    return [
        {"input_ids": batch.long().numpy(), "attention_mask": (batch != PAD).long().numpy()}
        for batch in batches
    ]


def onnx_runtime(path: Path) -> Callable[[dict[str, np.ndarray]], Any]:
    """Return a function that runs a batch in FP32: ONNX Runtime has no BF16 on a CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch)


def openvino(path: Path, rung: Rung) -> Callable[[dict[str, np.ndarray]], Any]:
    """Return a function that runs a batch in the precision of ``rung``, FP32 or BF16."""
    from openvino import Core

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if rung is Rung.BF16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = Core().compile_model(path, "CPU", settings)
    return lambda batch: compiled(batch)[0]


def over(batches: list[dict[str, np.ndarray]], embed: Callable[..., Any]) -> Run:
    """Return a run over all batches."""

    def run() -> None:
        for batch in batches:
            embed(batch)

    return run
