"""The finiteness check: its messages, and its exactness for every segment."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.rungs import Rung
from common.wire.messages import Instability, NonFinite
from workers.engine.finiteness import (
    describe_instability,
    describe_non_finite,
    finite_segments,
    merge_non_finite,
)

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_finite_passes(dtype):
    limits = torch.finfo(dtype)
    assert describe_non_finite(torch.tensor([limits.min, 0.0, limits.tiny, limits.max])) is None


def test_an_empty_tensor_passes():
    assert describe_non_finite(torch.empty(0, 320)) is None


def test_nan_and_both_infinities_are_counted_beside_the_finite_range():
    seen = describe_non_finite(torch.tensor([[1.5, NAN, -2.25], [INF, 7.0, -INF]]))
    assert seen == NonFinite(nan=1, inf=2, finite_min=-2.25, finite_max=7.0)


def test_a_tensor_without_any_finite_value_has_no_range():
    seen = describe_non_finite(torch.full((2, 3), NAN))
    assert seen == NonFinite(nan=6, inf=0, finite_min=None, finite_max=None)
    assert "no finite value" in str(seen)


def test_what_was_seen_of_parts_is_summed_up():
    parts = [torch.tensor([1.0, NAN]), torch.tensor([INF, -3.0]), torch.tensor([NAN])]
    whole = merge_non_finite([seen for seen in map(describe_non_finite, parts) if seen])
    assert whole == describe_non_finite(torch.cat(parts))


def instability(row: int) -> Instability:
    seen = NonFinite(nan=2, inf=1, finite_min=-12.5, finite_max=65504.0)
    return Instability(row=row, id="sp|P69905", length=142, seen={Rung.FP16: seen})


def test_the_message_says_where_what_and_how_to_find_the_cause():
    message = describe_instability(
        "job abc batch 3 rung fp16", [instability(17)], Rung.SELECTIVE_FP32
    )
    assert "job abc batch 3 rung fp16" in message
    assert "row 17 'sp|P69905' (142 letters)" in message
    assert "fp16: 2 NaN, 1 Inf, finite values from -12.5 to 6.55e+04" in message
    assert "next rung is selective_fp32" in message
    assert "VIRNUCPRO_DISABLE_FP16=1" in message


def test_the_message_of_the_last_rung_does_not_point_to_fp32():
    message = describe_instability("batch 3", [instability(17)], None)
    assert "last rung" in message
    assert "VIRNUCPRO_DISABLE_FP16" not in message


def test_a_message_names_a_few_rows_and_counts_the_rest():
    message = describe_instability("batch 3", [*map(instability, range(1000))], None)
    assert "And 997 more" in message
    assert len(message) < 600


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
