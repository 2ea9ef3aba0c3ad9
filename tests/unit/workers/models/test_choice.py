"""The choice of the kernel of attention, with kernels that fail on a GPU that is pretended."""

import pytest
import torch

from workers.models.attention import choice, flash
from workers.models.attention.choice import (
    Case,
    Kernel,
    first_that_works,
    has_norm_linear,
    packed_choice,
    unfit,
)
from workers.models.kernels import attention as own_kernel
from workers.models.kernels import has_matrix_units, hopper, norm_linear

GPU = torch.device("cuda")

CASE = Case(GPU, torch.float16, 64, alibi=False)

ALL = (Kernel.HOPPER, Kernel.TRITON, Kernel.FLASH_ATTN, Kernel.TORCH_VARLEN)


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Pretend a Hopper GPU on which all kernels are installed."""
    choice.packed_choice.cache_clear()
    choice.has_norm_linear.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (9, 0))
    monkeypatch.setattr(choice, "triton", object())
    monkeypatch.setattr(own_kernel, "takes", lambda *_: True)
    monkeypatch.setattr(hopper, "takes", lambda _device, _dtype, dim: dim in hopper.HEAD_DIMS)
    monkeypatch.setattr(flash, "find_flash_attn", lambda: print)
    monkeypatch.setattr(flash, "find_torch_varlen", lambda: print)
    yield
    choice.packed_choice.cache_clear()
    choice.has_norm_linear.cache_clear()


@pytest.fixture
def broken(monkeypatch) -> dict[Kernel, str]:
    """Return the kernels that fail, each with the reason, which tests fill."""
    found: dict[Kernel, str] = {}
    monkeypatch.setattr(choice, "attention_failure", lambda name, *_: found.get(name))
    return found


@pytest.mark.parametrize("count", range(5))
def test_the_first_kernel_that_works_is_used_and_the_others_failures_are_told(count, broken):
    broken.update({kernel: f"{kernel} is wrong" for kernel in ALL[:count]})
    found = first_that_works(CASE, ALL)
    assert found.kernel is (*ALL, Kernel.SDPA)[count]
    told = "; ".join(f"not {kernel}: {kernel} is wrong" for kernel in ALL[:count])
    assert found.why == (told or "the fastest")


def test_a_failure_is_a_warning_and_a_kernel_of_other_gpus_is_none(broken, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: (8, 0))
    broken[Kernel.TRITON] = "it is off"
    first_that_works(CASE, ALL)
    assert [record.getMessage() for record in caplog.records] == [
        "The kernel of attention triton is not used: it is off"
    ]


@pytest.mark.parametrize(
    ("kernel", "case", "said"),
    [
        (Kernel.HOPPER, CASE, None),
        (Kernel.HOPPER, CASE._replace(head_dim=128), "not written for heads of 128"),
        (Kernel.TRITON, CASE, None),
        (Kernel.FLASH_ATTN, CASE._replace(alibi=True), None),
        (Kernel.FLASH_ATTN, CASE._replace(head_dim=20), "no heads of 20"),
        (Kernel.TORCH_VARLEN, CASE._replace(alibi=True), "no ALiBi"),
        (Kernel.TORCH_VARLEN, CASE, None),
    ],
)
def test_a_kernel_is_tried_only_for_what_it_is_written_for(kernel, case, said):
    found = unfit(kernel, case)
    assert (found is None) if said is None else (said in str(found))


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(choice, "triton", None)
    monkeypatch.setattr(flash, "find_flash_attn", lambda: None)
    monkeypatch.setattr(flash, "find_torch_varlen", lambda: None)
    reasons = [unfit(kernel, CASE) for kernel in ALL]
    assert reasons == [
        "Triton is not installed",
        "Triton is not installed",
        "flash_attn is not installed",
        "this PyTorch has none",
    ]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (CASE._replace(device=torch.device("cpu")), "the CPU has PyTorch's alone"),
        (CASE._replace(dtype=torch.float32), "torch.float32 has no other"),
    ],
)
def test_a_cpu_and_full_precision_have_pytorch_s(case, said):
    assert packed_choice(case) == (Kernel.SDPA, said)


@pytest.fixture
def gluon(monkeypatch) -> None:
    """Pretend that Triton has Gluon."""
    monkeypatch.setattr(norm_linear, "norm_linear_rows", object())
    monkeypatch.setattr(norm_linear, "can_run", has_matrix_units)


@pytest.mark.parametrize("reason", [None, "it is off"])
@pytest.mark.parametrize(("dim", "head_dim"), [(320, 16), (480, 32), (640, 32)])
@pytest.mark.usefixtures("gluon")
def test_norm_and_product_are_one_kernel_for_8m_35m_and_150m_where_it_works(
    dim, head_dim, reason, caplog, monkeypatch
):
    monkeypatch.setattr(choice, "norm_linear_failure", lambda *_: reason)
    assert has_norm_linear(GPU, torch.float16, dim, 20, head_dim) is (reason is None)
    told = ["LayerNorm and products stay kernels of their own: it is off"]
    assert [record.getMessage() for record in caplog.records] == ([] if reason is None else told)


@pytest.mark.usefixtures("gluon")
def test_each_width_is_tried_once(monkeypatch):
    tried: list[int] = []
    monkeypatch.setattr(choice, "norm_linear_failure", lambda _d, _t, dim, *_: tried.append(dim))
    for dim in (320, 480, 320, 480):
        assert has_norm_linear(GPU, torch.float16, dim, 20, 32)
    assert tried == [320, 480]


@pytest.mark.parametrize(
    ("dtype", "dim", "heads", "head_dim"),
    [
        (torch.float16, 1280, 20, 64),
        (torch.float32, 320, 20, 16),
        (torch.float16, 640, 5, 128),
        (torch.float16, 480, 15, 32),  # rows of keys would begin in the middle of a block
    ],
)
@pytest.mark.usefixtures("gluon")
def test_norm_and_product_are_not_one_kernel_for_other_models(dtype, dim, heads, head_dim):
    assert not has_norm_linear(GPU, dtype, dim, heads, head_dim)


def test_norm_and_product_are_not_one_kernel_on_a_cpu():
    assert not has_norm_linear(torch.device("cpu"), torch.float16, 320, 20, 16)
