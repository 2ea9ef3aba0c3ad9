"""Half precision on a CPU: BF16 against FP32, for small models with random weights."""

import numpy as np
import pytest
import torch

from common.model_source import ModelSource
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support import trust
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.fair_esm import random_fair_esm, save_fair_esm

SPEC = ModelSpec(name="small", layers=3, dim=64, heads=4)

#: The floor for BF16, which has 8 bits where FP16 has 11.
BF16_FLOOR = 0.99


@pytest.fixture(scope="module", params=["esm2", "dnabert_s"])
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    if request.param == "esm2":
        path = save_fair_esm(random_fair_esm(SPEC), folder / "small.pt")
    else:
        path = save_checkpoint(SPEC, random_checkpoint(SPEC), folder)
    return ModelSource.parse(str(path))


@pytest.fixture(scope="module")
def seeds(source):
    return trust.measure_seeds(source, Rung.BF16, "cpu", 6)


@pytest.mark.parametrize("name", trust.SETS)
@pytest.mark.parametrize("layout", trust.LAYOUTS)
def test_half_precision_equals_fp32_for_every_length_and_layout(seeds, name, layout):
    trust.assert_equivalent(seeds, name, layout, BF16_FLOOR)


def test_long_sequences_are_no_worse(seeds):
    trust.assert_long_sequences_are_no_worse(seeds, BF16_FLOOR)


def test_everything_is_finite(seeds):
    trust.assert_stable(seeds)


def test_what_a_segment_is_packed_with_changes_no_bit_in_fp32(source):
    """With one thread, since the number of threads changes the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = trust.alone_and_in_company(source, Rung.FP32, "cpu")
    finally:
        torch.set_num_threads(threads)
    assert len(pairs) == 18
    for alone, together in pairs:
        np.testing.assert_array_equal(alone, together)
