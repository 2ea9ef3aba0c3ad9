"""The run behind ``worker validate``: measure, compare, record."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from common.errors import UserError
from common.model_source import ModelSource
from common.model_specs import MODELS, ModelSpec
from common.paths import check_has_folder, check_replaceable
from common.rungs import Rung, should_use_fp16
from workers.runtime.device import device_name
from workers.validation import PICTURE_SIGNATURE, DeviceChoice, HalfChoice, Request
from workers.validation.judge import judge
from workers.validation.measure import Measured, measure
from workers.validation.record import Validation, record_stores, write_record

log = logging.getLogger(__name__)


def run(request: Request) -> Validation:
    """Compare a model in half precision with FP32, and record the result.

    Raises:
        UserError: the model, the device, the picture or the store cannot be used, or memory ran
            out.
    """
    model = ModelSource.parse(request.model)
    source = weights_of(model, request.weights)
    device = choose_device(request.device)
    precision = choose_precision(request.precision, device)
    check_can_write(request.picture)
    stores = record_stores(request.store)
    reference = measure_or_explain(source, Rung.FP32, device, request.sequences_per_set)
    check_shape(reference.spec, model, source)
    half = measure_or_explain(source, precision, device, request.sequences_per_set)
    validation = judge(model, source, device_name(device), reference, half)
    for place in write_record(validation, stores):
        log.info("Recorded in %s.", place)
    return validation


def weights_of(model: ModelSource, weights: Path | None) -> ModelSource:
    """Return the source of the weights: ``--weights`` if given, else ``--model``."""
    if weights is None:
        return model
    if model.text not in MODELS:
        raise UserError(
            f"--weights {weights}: --model {model.text} already names the weights. Give --model "
            "one of the known names, or omit --weights."
        )
    return ModelSource.parse(weights)


def check_shape(found: ModelSpec, model: ModelSource, source: ModelSource) -> None:
    """Raise UserError if ``--weights`` and ``--model`` name different models."""
    named = MODELS.get(model.text)
    if named is None or replace(found, name=named.name) == named:
        return
    raise UserError(
        f"{source.text}: weights of {describe(found)}, but {named.name} is {describe(named)}. "
        "Give --model the name that these weights have."
    )


def describe(spec: ModelSpec) -> str:
    return (
        f"{spec.family.name} with {spec.layers} layers, width {spec.dim}, {spec.heads} heads and "
        f"layer_norm_eps {spec.eps:g}"
    )


def choose_device(choice: DeviceChoice) -> str:
    """Return the device asked for; by default ``cuda`` if there is a GPU."""
    has_gpu = torch.cuda.is_available()
    if choice == "cuda" and not has_gpu:
        raise UserError(
            "--device cuda: PyTorch finds no GPU here. Check nvidia-smi and CUDA_VISIBLE_DEVICES, "
            "or validate with --device cpu."
        )
    return "cuda" if has_gpu and choice != "cpu" else "cpu"


def choose_precision(choice: HalfChoice, device: str) -> Rung:
    """Return the precision asked for; by default FP16 on a GPU and BF16 on a CPU."""
    if not should_use_fp16():
        raise UserError(
            "VIRNUCPRO_DISABLE_FP16 is set: nothing is served in half precision, so there is "
            "nothing to validate. Unset it first."
        )
    if choice == "auto":
        return Rung.FP16 if device == "cuda" else Rung.BF16
    return Rung(choice)


def check_can_write(picture: Path | None) -> None:
    """Check before the work that the picture can be written after it.

    Raises:
        UserError: the file's folder does not exist, its name is not a PNG's, or another picture
            would be replaced.
    """
    if picture is None:
        return
    if picture.suffix.lower() != ".png":
        raise UserError(f"--picture {picture}: the picture is a PNG, so name it FILE.png.")
    check_has_folder(picture, "--picture")
    check_replaceable(picture, PICTURE_SIGNATURE, "--picture")


def measure_or_explain(source: ModelSource, precision: Rung, device: str, count: int) -> Measured:
    """Measure one model, and free the device's memory afterwards.

    Raises:
        UserError: the weights cannot be loaded, or do not fit the device.
    """
    with memory_explained(source, precision, device):
        return measure(source, precision, device, count)


@contextmanager
def memory_explained(source: ModelSource, precision: Rung, device: str) -> Iterator[None]:
    """Raise UserError if a model does not fit the device, and free its memory afterwards."""
    try:
        with warnings.catch_warnings():
            # PyTorch warns about speed, which does not matter here.
            warnings.simplefilter("ignore")
            yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{source.text} in {precision} does not fit {device_name(device)} "
            f"({str(error).splitlines()[0]}). Stop other programs on the device, or validate with "
            "--device cpu."
        ) from error
    finally:
        gc.collect()
        torch.cuda.empty_cache()
