"""The choice of kernels on a GPU: by trying, whatever the version of their compiler."""

import pytest
import torch

from common.model_specs import MODELS
from workers.models.attention import choice
from workers.models.attention.choice import (
    Case,
    Kernel,
    choice_of,
    fused_choice,
    has_norm_linear,
    packed_choice,
)
from workers.models.kernels import attention as own_kernel
from workers.models.kernels import hopper, norm, norm_linear, trial

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = torch.device("cuda")

FP16 = torch.float16

IS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9

on_hopper = pytest.mark.skipif(not IS_HOPPER, reason="needs a Hopper GPU")


@pytest.fixture(autouse=True)
def forgotten():
    """Forget what was found before, and afterwards what was pretended."""
    found = (
        *(choice.packed_choice, choice.fused_choice, choice.has_norm_linear),
        *(trial.pointwise_failure, trial.norm_linear_failure),
    )
    for cached in found:
        cached.cache_clear()
    yield
    for cached in found:
        cached.cache_clear()


def chosen(name: str = "esm2_t33_650M_UR50D") -> choice.Choice:
    return choice_of(MODELS[name], GPU, FP16)


@on_hopper
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_fastest_kernel_on_hopper(name):
    assert chosen(name).kernel is (Kernel.TRITON if "15B" in name else Kernel.HOPPER)


@on_hopper
@pytest.mark.parametrize("version", ["3.7.1", "9.9.9"])
def test_the_version_of_triton_does_not_matter(version, monkeypatch):
    monkeypatch.setattr(own_kernel.triton, "__version__", version)
    assert chosen().kernel is Kernel.HOPPER


@on_hopper
def test_a_kernel_that_does_not_compile_is_passed_over(monkeypatch, caplog):
    def attend(*_, **__):
        raise AttributeError("module 'tma' has no attribute 'async_copy'")

    monkeypatch.setattr(hopper, "attention", attend)
    found = chosen()
    assert found.kernel is Kernel.TRITON
    assert "not hopper: attention fails here (AttributeError: module 'tma' has no" in found.why
    assert "The kernel of attention hopper is not used" in caplog.text


@on_hopper
@pytest.mark.parametrize("wrong", [0.1, torch.nan])
def test_a_kernel_that_gives_other_numbers_is_passed_over(wrong, monkeypatch):
    right = hopper.attention
    monkeypatch.setattr(hopper, "attention", lambda *a, **k: right(*a, **k) + wrong)
    found = chosen()
    assert found.kernel is Kernel.TRITON
    assert "gives other numbers than PyTorch here" in found.why


def test_without_any_kernel_of_its_own_a_library_or_pytorch_is_used(monkeypatch):
    def attend(*_, **__):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(own_kernel, "varlen_attention", attend)
    found = chosen()
    assert found.kernel in {Kernel.FLASH_ATTN, Kernel.TORCH_VARLEN, Kernel.SDPA}
    assert "not triton: attention fails here (RuntimeError: no compiler)" in found.why


def test_without_layer_norm_plain_blocks_have_the_kernel_for_their_tensors(monkeypatch):
    monkeypatch.setattr(trial, "layer_norm", lambda x, *_: norm.layer_norm(x, *_) * 1.5)
    case = Case(GPU, FP16, 64, alibi=False)
    assert fused_choice(case) is None
    assert packed_choice(case).kernel is Kernel.TRITON


@on_hopper
@pytest.mark.parametrize("dtype", trial.LARGEST_ERROR, ids=str)
@pytest.mark.parametrize("dim", norm_linear.PLANS)
def test_narrow_models_norm_and_multiply_in_one_kernel_on_hopper(dim, dtype):
    assert has_norm_linear(GPU, dtype, dim, 20, 16 if dim == 320 else 32)
    assert not has_norm_linear(GPU, dtype, 1280, 20, 64)


@on_hopper
@pytest.mark.parametrize("name", ["norm_linear_rotate", "norm_linear_gelu"])
@pytest.mark.parametrize("wrong", [0.1, torch.nan])
def test_one_kernel_that_gives_other_numbers_is_passed_over(wrong, name, monkeypatch, caplog):
    right = getattr(trial, name)
    monkeypatch.setattr(trial, name, lambda *a: right(*a) + wrong)
    assert not has_norm_linear(GPU, FP16, 320, 20, 16)
    assert "LayerNorm and products stay kernels of their own: LayerNorm, a product" in caplog.text


@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize("dtype", trial.LARGEST_ERROR, ids=str)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 64, 128])
def test_the_triton_kernel_works_for_all_heads(head_dim, dtype, alibi):
    assert trial.attention_failure("triton", GPU, dtype, head_dim, alibi) is None


def test_lack_of_memory_says_nothing_of_a_kernel(monkeypatch):
    def attend(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(hopper, "attention", attend)
    monkeypatch.setattr(own_kernel, "varlen_attention", attend)
    with pytest.raises(torch.OutOfMemoryError):
        chosen()
