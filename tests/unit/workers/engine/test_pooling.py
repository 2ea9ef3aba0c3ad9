"""Pooling: which tokens go into a mean, and which segments are flagged."""

import numpy as np
import pytest
import torch

from common.model_specs import DNABERT_S, ESM2
from workers.engine.pooling import Pooled, pool, residue_positions

LENGTHS = [5, 3, 7]
BOUNDS = np.array([0, 5, 8, 15], dtype=np.int32)
FAMILIES = pytest.mark.parametrize("family", [ESM2, DNABERT_S], ids=lambda family: family.name)

LARGEST = torch.finfo(torch.float32).max


def hidden(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """``[T, 2 layers, 4]``."""
    return torch.randn(15, 2, 4, generator=torch.Generator().manual_seed(0)).to(dtype)


def pooled(values: torch.Tensor, family) -> Pooled:
    return Pooled.read(pool(values, torch.from_numpy(BOUNDS), family), layers=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@FAMILIES
def test_the_mean_is_over_what_the_family_pools_in_fp32(family, dtype):
    values = hidden(dtype)
    found = pooled(values, family)
    inner = slice(None) if family.pools_special_tokens else slice(1, -1)
    segments = values.double().split(LENGTHS)
    np.testing.assert_allclose(
        found.mean, torch.stack([one[inner].mean(0) for one in segments]), atol=1e-6
    )
    np.testing.assert_array_equal(found.bos, values[BOUNDS[:-1]].float())
    assert found.mean.dtype == found.bos.dtype == np.float32
    assert found.finite.tolist() == [True, True, True]


def test_only_dnabert_s_pools_its_special_tokens():
    assert (ESM2.pools_special_tokens, DNABERT_S.pools_special_tokens) == (False, True)


@pytest.mark.parametrize("amount", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("token", [5, 6, 7], ids=["first", "inner", "last"])
@FAMILIES
def test_any_token_that_is_not_finite_flags_its_segment_alone(family, token, amount):
    values = hidden()
    values[token, 1, 2] = amount
    assert pooled(values, family).finite.tolist() == [True, False, True]


@FAMILIES
def test_a_mean_that_is_not_finite_flags_its_segment_though_all_its_tokens_are(family):
    """The sums over first token, letters and last token are all in range; their sum is not."""
    values = torch.zeros(15, 2, 4)
    values[5:8, 0, 0] = 0.6 * LARGEST
    found = pooled(values, family)
    assert np.isfinite(found.mean[found.finite]).all()
    assert found.finite.tolist() == [True, not family.pools_special_tokens, True]


def test_residues_are_all_but_the_first_and_last_token_of_each_segment():
    assert residue_positions(BOUNDS).tolist() == [1, 2, 3, 6, 9, 10, 11, 12, 13]
