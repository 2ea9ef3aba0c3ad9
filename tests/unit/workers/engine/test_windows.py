"""Windows: every letter of a long record is in one, and vectors are weighted means."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.windows import cut_windows, join_windows, windows

sizes = st.integers(2, 500)


@st.composite
def lengths_sizes_overlaps(draw):
    size = draw(sizes)
    return draw(st.integers(1, 5000)), size, draw(st.integers(0, size - 1))


@given(lengths_sizes_overlaps())
def test_windows_cover_every_letter_and_none_is_longer_than_asked(case):
    length, size, overlap = case
    found = windows(length, size, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(end - start == min(size, length) for start, end in found)


@given(lengths_sizes_overlaps())
def test_neighbours_overlap_by_at_least_what_was_asked_for_and_evenly(case):
    length, size, overlap = case
    found = windows(length, size, overlap)
    shared = [end - start for (_, end), (start, _) in pairwise(found)]
    assert all(letters >= overlap for letters in shared)
    assert not shared or max(shared) - min(shared) <= 1


@given(lengths_sizes_overlaps())
def test_there_is_no_window_too_many(case):
    length, size, overlap = case
    count = len(windows(length, size, overlap))
    assert count == 1 or size + (count - 2) * (size - overlap) < length


def test_pieces_are_in_order_and_say_where_each_sequence_begins():
    pieces, firsts = cut_windows(["ABCDEFGH", "XY", "KLMNOP"], 4, 1)
    assert pieces == ["ABCD", "CDEF", "EFGH", "XY", "KLMN", "MNOP"]
    assert firsts == [0, 3, 4]


def means(vectors: np.ndarray, weights: np.ndarray, firsts) -> np.ndarray:
    return join_windows({"mean": vectors}, weights, firsts)["mean"]


def test_windows_are_joined_by_their_weights():
    vectors = np.array([[1.0, 0.0], [4.0, 2.0], [7.0, 7.0]], np.float32)
    found = means(vectors, np.array([3, 1, 5]), [0, 2])
    np.testing.assert_allclose(found, [[7 / 4, 2 / 4], [7.0, 7.0]])
    assert found.dtype == np.float32


def test_records_of_one_window_each_keep_their_numbers_to_the_bit():
    vectors = np.random.default_rng(0).random((5, 3), np.float32)
    assert means(vectors, np.arange(1, 6), range(5)) is vectors


def test_a_window_that_is_not_finite_makes_its_record_alone_so():
    vectors = np.array([[1.0], [np.nan], [2.0], [3.0]], np.float32)
    found = means(vectors, np.ones(4, np.int64), [0, 2])
    assert np.isnan(found[0]).all()
    assert found[1] == 2.5


@pytest.mark.parametrize("amount", [1e36, float(np.finfo(np.float32).max)])
def test_windows_that_are_finite_have_a_finite_mean(amount):
    vectors = np.array([[amount], [amount], [-amount], [1.0]], np.float32)
    found = means(vectors, np.array([1000, 977, 1000, 10]), [0, 3])
    np.testing.assert_allclose(found, [[amount * 977 / 2977], [1.0]], rtol=1e-6)
    found = means(np.full((9, 1), amount, np.float32), np.arange(991, 1000), [0])
    assert found == np.float32(amount)


def test_the_largest_of_windows_and_their_deviation_are_those_of_all_their_tokens():
    """The second record is a window of its own; weights are tokens, all of them pooled."""
    draw = np.random.default_rng(0)
    pieces = [draw.normal(1e4, 1, (size, 3)).astype(np.float32) for size in (4, 9, 5, 7)]
    vectors = {
        "mean": np.stack([piece.mean(0, np.float64) for piece in pieces]).astype(np.float32),
        "max": np.stack([piece.max(0) for piece in pieces]),
        "std": np.stack([piece.std(0, np.float64) for piece in pieces]).astype(np.float32),
    }
    found = join_windows(vectors, np.array([4, 9, 5, 7]), [0, 3])
    for row, whole in enumerate([np.concatenate(pieces[:3]), pieces[3]]):
        assert np.array_equal(found["max"][row], whole.max(0))
        np.testing.assert_allclose(found["std"][row], whole.std(0, np.float64), atol=1e-3)
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
