"""LayerNorm, a product, and rotary embedding or GELU in one kernel on a Hopper GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workers.models.kernels.norm_linear import (
    HEAD_DIMS,
    PLANS,
    ROWS,
    norm_linear_gelu,
    norm_linear_rotate,
    takes,
)
from workers.models.rotary import RotaryEmbedding, rotate

IS_TAKEN = torch.cuda.is_available() and takes(torch.device("cuda"), torch.float16, 320, 20, 16)

pytestmark = pytest.mark.skipif(not IS_TAKEN, reason="needs a Hopper GPU and Gluon")

#: Bounds for the rounding of normed rows and results: ``(relative, absolute)``.
BOUNDS = {torch.float16: (1e-3, 1e-2), torch.bfloat16: (8e-3, 8e-2)}

#: Rows of which all groups of all programs have some: the first have two tiles, the last is cut.
MANY = 150 * max(plan.groups for plan in PLANS.values()) * ROWS - 77

#: Numbers of rows: of one group, of two, of three, around the edges of tiles, and ``MANY``.
TOTALS = [1, 63, 64, 65, 128, 129, 192, 193, 1000, MANY]

#: Widths of the stream, heads, and their widths as they are padded: of 8M, 35M and 150M.
MODELS = [(320, 20, 16), (480, 20, 32), (640, 20, 32)]

dtypes = pytest.mark.parametrize("dtype", BOUNDS, ids=str)
totals = pytest.mark.parametrize("total", TOTALS)
models = pytest.mark.parametrize("model", MODELS, ids=str)


class Case:
    """A stream, and the layers that read it."""

    def __init__(
        self,
        total: int,
        dtype: torch.dtype = torch.float16,
        model: tuple[int, int, int] = MODELS[0],
    ) -> None:
        torch.manual_seed(0)
        dim, self.heads, self.head_dim = model
        with torch.device("cuda"):
            self.x = (2 * torch.randn(total, dim) + 0.5).to(dtype)
            self.plus = torch.randn(dim)
            self.norm = nn.LayerNorm(dim, dtype=dtype)
            self.qkv = nn.Linear(dim, 3 * self.heads * self.head_dim, dtype=dtype)
            self.fc1 = nn.Linear(dim, 4 * dim, dtype=dtype)
        for layer in (self.norm, self.qkv, self.fc1):
            layer.requires_grad_(False)
        self.norm.weight.normal_(1.0, 0.2)
        self.norm.bias.normal_(0.0, 0.2)

    def turns(self) -> tuple[Tensor, Tensor]:
        positions = torch.arange(len(self.x)) % 1024
        return tuple(x.cuda() for x in RotaryEmbedding(self.head_dim)(positions))

    def rotated(self) -> Tensor:
        given = self.x, self.norm, self.plus, self.qkv
        return norm_linear_rotate(*given, self.heads, self.turns())

    def exactly_rotated(self) -> Tensor:
        cos, sin = self.turns()
        halves = self.product(self.qkv).float().unflatten(-1, (3, -1, self.head_dim))
        q, k, v = halves.unbind(1)
        return torch.stack((rotate(q, cos, sin), rotate(k, cos, sin), v), 1).flatten(1)

    def activated(self) -> Tensor:
        return norm_linear_gelu(self.x, self.norm, self.plus, self.fc1)

    def product(self, linear: nn.Linear) -> Tensor:
        """Return the linear layer of the normed stream in FP64."""
        weights = (w.double() for w in (self.norm.weight, self.norm.bias))
        normed = F.layer_norm(self.x + self.plus.double(), self.plus.shape, *weights, self.norm.eps)
        return F.linear(normed, linear.weight.double(), linear.bias.double())


def assert_close(found: Tensor, expected: Tensor) -> None:
    relative, largest = BOUNDS[found.dtype]
    assert (found - expected).norm() / expected.norm() < relative
    assert (found - expected).abs().max() < largest


def test_only_halves_and_some_widths_are_taken():
    device = torch.device("cuda")
    for model in MODELS:
        assert takes(device, torch.bfloat16, *model)
    assert not takes(device, torch.float32, 320, 20, 16)
    assert not takes(device, torch.float16, 1280, 20, 64)
    assert not takes(device, torch.float16, 320, 4, 80)
    assert not takes(device, torch.float16, 480, 15, 32)  # three times 480 are no blocks of 64
    assert not takes(torch.device("cpu"), torch.float16, 320, 20, 16)


@totals
@dtypes
@models
def test_gelu_of_the_product_is_that_in_fp64(model, dtype, total):
    case = Case(total, dtype, model)
    found = case.activated()
    assert (found.dtype, found.shape) == (dtype, (total, 4 * model[0]))
    assert_close(found, F.gelu(case.product(case.fc1)))


@totals
@dtypes
@models
def test_queries_and_keys_of_the_product_are_rotated_and_values_are_not(model, dtype, total):
    case = Case(total, dtype, model)
    assert_close(case.rotated(), case.exactly_rotated())


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_heads_of_all_widths_are_rotated(head_dim):
    case = Case(1000, model=(320, 320 // head_dim, head_dim))
    assert_close(case.rotated(), case.exactly_rotated())


@models
def test_a_mean_far_above_the_deviation_loses_nothing(model):
    case = Case(500, model=model)
    case.plus += 1000.0
    assert_close(case.activated(), F.gelu(case.product(case.fc1)))


@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
@models
def test_a_row_that_is_not_finite_is_nan_and_its_neighbours_are_what_they_were(model, amount):
    case = Case(1000, model=model)
    expected = case.rotated(), case.activated()
    odd = [0, 100, 127, 128, 191, 192, 999]
    case.x[odd, 7] = amount
    rest = [row for row in range(1000) if row not in odd]
    for found, before in zip((case.rotated(), case.activated()), expected, strict=True):
        assert found[odd].isnan().all()
        assert torch.equal(found[rest], before[rest])


def test_what_overflows_is_not_finite():
    case = Case(64)
    case.fc1.bias[3] = 6e4
    case.fc1.weight[3] = 0.0
    case.fc1.weight[3, 0] = 3e4
    found = case.activated()
    exact = F.gelu(case.product(case.fc1))[:, 3]
    assert (exact > 7e4).any()
    assert not found[exact > 7e4, 3].isfinite().any()


@models
def test_the_same_rows_give_the_same_result_bit_for_bit(model):
    case = Case(MANY, model=model)
    first = case.rotated(), case.activated()
    for _ in range(20):
        assert torch.equal(case.rotated(), first[0])
        assert torch.equal(case.activated(), first[1])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # it is a prototype, it says
def test_it_never_waits_for_the_device():
    case = Case(1000)
    turns = case.turns()
    torch.cuda.set_sync_debug_mode("error")
    try:
        norm_linear_rotate(case.x, case.norm, case.plus, case.qkv, 20, turns)
        case.activated()
    finally:
        torch.cuda.set_sync_debug_mode("default")
