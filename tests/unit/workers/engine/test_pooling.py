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
    np.testing.assert_array_equal(found.vectors["bos"], values[BOUNDS[:-1]].float())
    assert {one.dtype for one in found.vectors.values()} == {np.dtype(np.float32)}
    assert found.finite.tolist() == [True, True, True]


def everything(values: torch.Tensor, family) -> Pooled:
    more = ("std", "max")
    return Pooled.read(pool(values, torch.from_numpy(BOUNDS), family, more), layers=2, more=more)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@FAMILIES
def test_max_and_std_are_of_the_tokens_that_the_mean_is_of(family, dtype):
    values = hidden(dtype)
    found, without = everything(values, family), pooled(values, family)
    for name in ("mean", "bos"):
        assert np.array_equal(found.vectors[name], without.vectors[name])
    inner = slice(None) if family.pools_special_tokens else slice(1, -1)
    segments = [one[inner].double().numpy() for one in values.split(LENGTHS)]
    assert np.array_equal(found.vectors["max"], np.stack([one.max(0) for one in segments]))
    np.testing.assert_allclose(
        found.vectors["std"], np.stack([one.std(0) for one in segments]), atol=1e-6
    )
    if family is ESM2:  # a single residue
        assert not found.vectors["std"][1].any()


@FAMILIES
def test_std_does_not_cancel_where_a_mean_is_far_from_0(family):
    """The difference of sums of squares would be off by a hundred times what is left."""
    values = hidden() + 10_000
    inner = slice(None) if family.pools_special_tokens else slice(1, -1)
    expected = np.stack([one[inner].double().numpy().std(0) for one in values.split(LENGTHS)])
    np.testing.assert_allclose(everything(values, family).vectors["std"], expected, atol=1e-3)


@FAMILIES
def test_a_deviation_that_is_not_finite_flags_its_segment_though_all_its_tokens_are(family):
    values = hidden()
    values[10, 0, 0] = 1e-15 * LARGEST
    values[11, 0, 0] = -1e-15 * LARGEST  # the mean is in range, and the squares are not
    assert pooled(values, family).finite.all()
    assert everything(values, family).finite.tolist() == [True, True, False]


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
