"""The check on what is not finite: what it says, and that it errs on no segment."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.stability import NumericalInstabilityError, check_numerical_stability, finite_segments

NAN, INF = float("nan"), float("inf")


def seen_in(embeddings: torch.Tensor, context: str = "batch 3") -> NumericalInstabilityError:
    with pytest.raises(NumericalInstabilityError) as caught:
        check_numerical_stability(embeddings, context)
    return caught.value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_finite_passes(dtype):
    limits = torch.finfo(dtype)
    check_numerical_stability(torch.tensor([limits.min, 0.0, limits.tiny, limits.max]), "batch 3")


def test_an_empty_tensor_passes():
    check_numerical_stability(torch.empty(0, 320), "batch 3")


def test_nan_and_both_infinities_are_counted_beside_the_finite_range():
    error = seen_in(torch.tensor([[1.5, NAN, -2.25], [INF, 7.0, -INF]]))
    assert (error.seen.nan, error.seen.inf) == (1, 2)
    assert (error.seen.finite_min, error.seen.finite_max) == (-2.25, 7.0)


def test_the_message_says_where_what_and_how_to_find_the_cause():
    values = torch.tensor([NAN, NAN, INF, -12.5, 65504.0], dtype=torch.float16)
    message = str(seen_in(values, "job abc batch 3 row 17 sp|P69905"))
    assert "job abc batch 3 row 17 sp|P69905" in message
    assert "2 NaN, 1 Inf, finite values from -12.5 to 6.55e+04" in message
    assert "float16" in message
    assert "VIRNUCPRO_DISABLE_FP16=1" in message


def test_a_tensor_without_any_finite_value_has_no_range():
    error = seen_in(torch.full((2, 3), NAN))
    assert (error.seen.nan, error.seen.inf) == (6, 0)
    assert error.seen.finite_min is error.seen.finite_max is None
    assert "no finite value" in str(error)


values = st.floats(width=16, allow_nan=True, allow_infinity=True)
segments = st.lists(st.lists(values, min_size=1, max_size=30), min_size=1, max_size=10)


@given(segments)
def test_exactly_the_segments_with_a_value_that_is_not_finite_are_flagged(lists):
    tensors = [torch.tensor(numbers, dtype=torch.float16) for numbers in lists]
    sums = torch.stack([tensor.float().sum() for tensor in tensors])[:, None]
    expected = [bool(tensor.isfinite().all()) for tensor in tensors]
    assert finite_segments(sums).tolist() == expected


def test_one_value_in_any_place_flags_its_segment_alone():
    sums = torch.zeros(4, 3, 2, 5)
    sums[1, 2, 0, 4], sums[3, 0, 1, 0] = NAN, -INF
    assert finite_segments(sums).tolist() == [True, False, True, False]
