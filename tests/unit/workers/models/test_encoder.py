"""What all models have in common."""

import pytest
import torch

from common.model_specs import MODELS
from workers.models.families import model_class

NAMES = ["esm2_t6_8M_UR50D", "dnabert_s"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_built_where_the_caller_says(name):
    """Buffers too: the benchmarks build theirs on the GPU, and loading begins on no device."""
    spec = MODELS[name]
    with torch.device("meta"):
        model = model_class(spec)(spec)
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
