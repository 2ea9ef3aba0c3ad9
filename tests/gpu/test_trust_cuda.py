"""Half precision on a GPU: packed FP16 against FP32, in the models that users run."""

import numpy as np
import pytest

from common.model_source import ModelSource
from common.rungs import Rung
from tests.support import trust
from workers.validation.statistics import EXPECTED

#: Models with random weights of the usual size.
MODELS = ["random:esm2_t33_650M_UR50D", "random:esm2_t36_3B_UR50D", "random:dnabert_s"]


@pytest.fixture(scope="module", params=MODELS)
def source(request):
    return ModelSource.parse(request.param)


@pytest.fixture(scope="module")
def seeds(source):
    return trust.measure_seeds(source, Rung.FP16, "cuda", 16)


@pytest.mark.parametrize("name", trust.SETS)
@pytest.mark.parametrize("layout", trust.LAYOUTS)
def test_fp16_equals_fp32_for_every_length_and_layout(seeds, name, layout):
    trust.assert_equivalent(seeds, name, layout, EXPECTED)


def test_long_sequences_are_no_worse(seeds):
    trust.assert_long_sequences_are_no_worse(seeds, EXPECTED)


def test_everything_is_finite(seeds):
    trust.assert_stable(seeds)


def test_a_segment_does_not_depend_on_what_it_is_packed_with(source):
    for alone, together in trust.alone_and_in_company(source, Rung.FP16, "cuda"):
        product = np.linalg.norm(alone) * np.linalg.norm(together)
        assert alone @ together / product > 0.9999
