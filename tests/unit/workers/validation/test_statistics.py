"""The statistics of a validation: each bound from both sides, and what is not finite."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workers.validation.statistics import (
    EXPECTED,
    FLOOR,
    MEAN_BOUND,
    NORM_BOUND,
    OUTLIER_BOUND,
    STD_BOUND,
    THRESHOLDS,
    centred_cosines,
    compare,
    cosines,
    outlier_share,
    relative_difference,
)

NAN, INF = float("nan"), float("inf")

REFERENCE = np.random.default_rng(0).normal(0, 1, (8, 500)).astype(np.float32)

#: A relative step to either side of a bound.
STEP = 1e-3


def turned(cosine: float) -> np.ndarray:
    """Return the reference with each row rotated by an angle."""
    r = REFERENCE.astype(np.float64)
    noise = np.random.default_rng(1).normal(0, 1, r.shape)
    across = noise - r * ((noise * r).sum(1) / (r * r).sum(1))[:, None]
    across *= (np.linalg.norm(r, axis=1) / np.linalg.norm(across, axis=1))[:, None]
    return r * cosine + across * np.sqrt(1 - cosine**2)


# --- alike --------------------------------------------------------------------------------------


def test_an_array_is_as_expected_beside_itself():
    same = compare(REFERENCE, REFERENCE)
    assert same.passed
    assert same.as_expected
    assert same.cosine_min == pytest.approx(1)
    assert (same.mean_difference, same.std_difference, same.norm_difference) == (0, 0, 0)
    assert same.outliers == pytest.approx(0.0027, abs=0.001)  # of a normal distribution
    assert len(same.cosines) == len(REFERENCE)


values = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 8)),
    elements=st.floats(1, 100, width=32),
)


@given(values, st.integers(-3, 3))
def test_only_length_and_not_direction_changes_with_a_factor(array, exponent):
    scaled = compare(array * np.float32(2.0**exponent), array)
    assert scaled.cosines == pytest.approx([1] * len(array))
    assert scaled.norm_difference == pytest.approx(abs(2.0**exponent - 1))


@given(values, st.data())
def test_cosines_are_those_of_numpy_and_do_not_depend_on_the_order(array, data):
    other = data.draw(
        arrays(np.float32, array.shape, elements=st.floats(-100, 100, width=32).filter(abs))
    )
    a, b = array.astype(np.float64), other.astype(np.float64)
    plain = [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]
    assert compare(array, other).cosines == pytest.approx(plain)
    assert compare(other, array).cosines == pytest.approx(plain)


# --- centred ------------------------------------------------------------------------------------

#: Similar embeddings: the cosine of any two is above 0.99.
ALIKE = 20.0 + REFERENCE[:4]


def test_centring_shows_what_a_large_common_part_hides():
    mixed_up = compare(ALIKE[::-1], ALIKE)
    assert mixed_up.cosine_min is not None
    assert mixed_up.cosine_min > FLOOR
    assert mixed_up.centred_cosine_min is not None
    assert mixed_up.centred_cosine_min < 0
    assert mixed_up.passed  # it is shown and does not decide


def test_beside_itself_the_centred_cosine_is_1_whatever_the_common_part():
    assert centred_cosines(ALIKE, ALIKE) == pytest.approx([1] * 4)


def test_centred_cosines_are_cosines_of_what_differs_from_the_references_mean():
    a, b = turned(0.5)[:4], REFERENCE[:4].astype(np.float64)
    expected = cosines(a - b.mean(axis=0), b - b.mean(axis=0))
    assert centred_cosines(a, b) == pytest.approx(expected)
    assert centred_cosines(3 * a + 20, 3 * b + 20) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_embeddings_that_are_all_the_same_have_no_centred_cosine(count):
    same = np.repeat(REFERENCE[:1], count, axis=0)
    assert centred_cosines(same.astype(np.float64), same.astype(np.float64)).size == 0
    assert compare(same * 2, same).centred_cosine_min is None


def test_what_differs_from_the_mean_by_rounding_alone_has_no_direction():
    rounded = np.repeat(REFERENCE[:1], 3, axis=0).astype(np.float64)
    rounded[0] *= 1 + 1e-8
    assert centred_cosines(rounded, rounded).size == 0


def test_a_reference_at_the_mean_is_left_out_and_the_others_count():
    reference = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 0.0]])
    measured = np.array([[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]])
    assert centred_cosines(measured, reference) == pytest.approx([1, 1])


def test_an_embedding_at_the_mean_of_others_is_like_nothing():
    reference = np.array([[1.0, 0.0], [3.0, 0.0]])
    assert centred_cosines(np.array([[2.0, 0.0], [3.0, 0.0]]), reference).tolist() == [0, 1]


def test_what_is_not_finite_is_no_part_of_the_mean():
    measured = ALIKE.copy()
    measured[0, 0] = NAN
    assert compare(measured, ALIKE).centred_cosine_min == pytest.approx(1)
    assert compare(measured * NAN, ALIKE).centred_cosine_min is None


# --- on both sides of each bound ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cosine", "passed", "expected"),
    [
        (1.0, True, True),
        (EXPECTED + 1e-6, True, True),
        (EXPECTED - 1e-6, True, False),
        (FLOOR + 1e-6, True, False),
        (FLOOR - 1e-6, False, False),
        (0.0, False, False),
        (-1.0, False, False),
    ],
)
def test_the_cosine_decides_at_the_floor_and_is_marked_below_what_is_expected(
    cosine, passed, expected
):
    found = compare(turned(cosine), REFERENCE)
    assert found.cosine_min == pytest.approx(cosine, abs=1e-9)
    assert ("cosine_min" not in found.failures) is passed
    assert found.passed is passed
    assert found.as_expected is expected


def test_the_worst_sequence_counts():
    measured = REFERENCE.copy()
    measured[3] = -measured[3]
    found = compare(measured, REFERENCE)
    assert found.cosine_min == pytest.approx(-1)
    assert found.cosine_mean == pytest.approx((7 - 1) / 8)
    assert "cosine_min" in found.failures


@pytest.mark.parametrize(("factor", "passed"), [(1 - STEP, True), (1 + STEP, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_means_may_differ_by_less_than_the_bound(factor, passed, sign):
    reference = REFERENCE.astype(np.float64)
    found = compare(reference + sign * factor * MEAN_BOUND, reference)
    assert found.mean_difference == pytest.approx(factor * MEAN_BOUND)
    assert found.failures == (() if passed else ("mean_difference",))


@pytest.mark.parametrize(("factor", "passed"), [(1 - STEP, True), (1 + STEP, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_norms_and_standard_deviations_may_differ_by_less_than_their_bounds(factor, passed, sign):
    assert STD_BOUND == NORM_BOUND
    reference = REFERENCE - REFERENCE.mean()
    found = compare(reference * (1 + sign * factor * STD_BOUND), reference)
    assert found.std_difference == pytest.approx(factor * STD_BOUND, rel=1e-4)
    assert found.norm_difference == pytest.approx(factor * NORM_BOUND, rel=1e-4)
    assert found.failures == (() if passed else ("std_difference", "norm_difference"))


@pytest.mark.parametrize(("factor", "passed"), [(1 - STEP, True), (1 + STEP, False)])
def test_one_sequence_of_another_norm_is_enough_to_fail(factor, passed):
    measured = REFERENCE.copy()
    measured[5] *= 1 + factor * NORM_BOUND
    found = compare(measured, REFERENCE)
    assert found.failures == (() if passed else ("norm_difference",))


@pytest.mark.parametrize(
    ("outliers", "passed"), [(95, True), (99, True), (100, False), (105, False)]
)
def test_the_share_of_outliers_must_be_under_its_bound(outliers, passed):
    assert OUTLIER_BOUND == 0.1
    values = np.zeros((1, 1000))
    values[0, :outliers] = np.where(np.arange(outliers) % 2, 1.0, -1.0)
    found = compare(values, values)
    assert found.outliers == pytest.approx(outliers / 1000)
    assert found.failures == (() if passed else ("outliers",))


@given(values)
def test_there_are_never_more_outliers_than_chebyshev_allows(array):
    assert outlier_share(array.astype(np.float64)) <= 1 / 9


def test_values_that_are_all_the_same_have_no_outliers():
    assert outlier_share(np.full((3, 4), 2.5)) == 0


# --- not finite ---------------------------------------------------------------------------------


def test_nan_and_inf_are_counted_and_fail_while_the_rest_is_still_compared():
    measured = REFERENCE.copy()
    measured[2, :3], measured[6, 0] = NAN, -INF
    found = compare(measured, REFERENCE)
    assert (found.nan, found.inf) == (3, 1)
    assert found.failures == ("nan", "inf")
    assert [i for i, cosine in enumerate(found.cosines) if cosine is None] == [2, 6]
    assert found.cosine_min == pytest.approx(1)


def test_a_reference_that_is_not_finite_fails_too():
    reference = REFERENCE.copy()
    reference[0, 0] = INF
    assert compare(REFERENCE, reference).failures == ("inf",)


def test_where_nothing_is_finite_there_are_no_figures_and_no_pass():
    found = compare(np.full((2, 3), NAN), np.ones((2, 3)))
    assert found.failures == ("nan", "cosine_min")
    assert not found.as_expected
    assert (found.nan, found.cosines, found.cosine_min, found.outliers) == (
        6,
        (None, None),
        None,
        None,
    )


def test_a_half_precision_array_is_compared_without_overflow():
    large = np.full((2, 100), 60_000, dtype=np.float16)
    assert compare(large, large.astype(np.float32)).cosine_min == pytest.approx(1)


# --- zeros --------------------------------------------------------------------------------------


def test_a_vector_of_zeros_is_like_nothing():
    zeros, ones = np.zeros((1, 4)), np.ones((1, 4))
    assert cosines(zeros, ones) == cosines(ones, zeros) == cosines(zeros, zeros) == 0
    assert not compare(zeros, zeros).passed


def test_from_zero_anything_is_entirely_different():
    assert relative_difference(np.array([0.0, 3.0, 2.0]), np.array([0.0, 0.0, 4.0])).tolist() == [
        *(0.0, 1.0, 0.5)
    ]


def test_every_bound_is_among_the_thresholds_that_a_record_states():
    assert set(THRESHOLDS.values()) == {
        *(FLOOR, EXPECTED, MEAN_BOUND, STD_BOUND, NORM_BOUND, OUTLIER_BOUND)
    }
