"""The embedding of tokens with a factor for each, in one kernel on a GPU."""

import pytest
import torch
import torch.nn.functional as F

from workers.models.kernels import can_run
from workers.models.kernels.embedding import PROGRAM_SIZE, scaled_embedding

IS_TAKEN = torch.cuda.is_available() and can_run(torch.device("cuda"), torch.float16)

pytestmark = pytest.mark.skipif(not IS_TAKEN, reason="needs a GPU and Triton")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dim", [320, 480, 640, 1280, 2560])
@pytest.mark.parametrize("total", [1, 7, 8, 9, PROGRAM_SIZE + 3])
def test_the_bits_are_those_of_pytorch(total, dim, dtype):
    torch.manual_seed(0)
    table = (3 * torch.randn(33, dim, device="cuda")).to(dtype)
    tokens = torch.randint(0, 33, (total,), device="cuda")
    scale = torch.rand(total, device="cuda") * (tokens != 5)
    expected = F.embedding(tokens, table).mul_(scale[:, None])
    assert torch.equal(scaled_embedding(tokens, table, scale), expected)


def test_what_is_not_finite_stays_in_the_rows_of_its_token():
    table = torch.ones(33, 320, device="cuda", dtype=torch.float16)
    table[7, 3], table[9, 0] = float("nan"), float("inf")
    tokens = torch.tensor([7, 8, 9, 7], device="cuda")
    scale = torch.tensor([1.0, 1.0, 1.0, 0.0], device="cuda")
    found = scaled_embedding(tokens, table, scale)
    assert found.isfinite().all(1).tolist() == [False, True, False, False]


def test_of_no_tokens_there_is_no_row():
    table = torch.ones(33, 320, device="cuda", dtype=torch.float16)
    empty = torch.empty(0, device="cuda")
    assert scaled_embedding(empty.long(), table, empty).shape == (0, 320)
