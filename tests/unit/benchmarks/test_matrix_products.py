"""The matrix products that a CPU's throughput is compared with."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inputs import random_model, tokens_for
from benchmarks.matrix_products import matrix_products
from common.model_specs import ModelSpec

SPEC = ModelSpec(name="small", layers=2, dim=64, heads=4)
PROTEINS = ["M", "MKTAYIAK" * 9, "GAVLIPFM" * 90]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pack_tokens", [1, 80, 4096])
def test_they_are_all_of_the_model_and_no_more(dtype, pack_tokens):
    tokens = tokens_for(SPEC, PROTEINS)
    model = random_model(SPEC, torch.device("cpu")).to(dtype)
    run = matrix_products(model, tokens, pack_tokens)
    with FlopCounterMode(display=False) as counted:
        run()
    squares = sum(length**2 for length in tokens.lengths.tolist())
    layers = 24 * SPEC.dim**2 * len(tokens.ids)  # 12 dim² weights, a product and a sum each
    attention = 4 * SPEC.dim * squares  # two products
    assert counted.get_total_flops() == SPEC.layers * (layers + attention)
