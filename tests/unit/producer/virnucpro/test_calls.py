"""Calls of contigs, against the rule written again for one contig at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from producer.virnucpro.calls import (
    CALLS,
    COLUMNS,
    TIERS,
    Calls,
    Groups,
    call_groups,
    natural_order,
    table_of,
)


def by_the_book(chunks: list[tuple[float, float]]) -> tuple[str, str, float]:
    """Return the call, the tier and the weighted difference of a contig's chunks."""
    if not chunks:
        return "none", "none", 0.0
    weights = [math.sqrt(abs(virus - others)) for others, virus in chunks]
    weighted = sum((b - a) * w for (a, b), w in zip(chunks, weights, strict=True))
    delta = weighted / sum(weights) if sum(weights) else 0.0
    if -0.3 <= delta <= 0.3:
        return "Ambiguous", "review", delta
    viral = delta > 0.3
    sure = [(b, a) if viral else (a, b) for a, b in chunks]
    confident = sum(winner > 0.8 and loser < 0.3 for winner, loser in sure)
    clear = sum(not (a > 0.7 and b > 0.7) for a, b in chunks)
    tier = "low_confidence"
    if confident and confident >= 0.1 * clear:
        tier = "high_confidence" if abs(delta) > 0.6 else "moderate_confidence"
    if len(chunks) < 5:
        tier = "review" if tier == "low_confidence" else "low_confidence"
    return ("Viral" if viral else "Non-viral"), tier, delta


#: The highest scores of a chunk's frames: of several, both may be high, and neither need be.
SCORE = st.floats(0, 1, width=32)
USUAL = [(0.0625, 0.9375), (0.9375, 0.0625), (0.875, 0.875), (0.5, 0.5)]
CHUNK = st.one_of(st.tuples(SCORE, SCORE), st.sampled_from(USUAL))


def called(contigs: list[list[tuple[float, float]]]) -> Calls:
    groups = [number for number, chunks in enumerate(contigs) for _ in chunks]
    maxima = [chunk for chunks in contigs for chunk in chunks]
    return call_groups(
        np.array(maxima, np.float32).reshape(-1, 2), np.array(groups, np.int64), len(contigs)
    )


@given(st.lists(st.lists(CHUNK, max_size=12), min_size=1, max_size=6))
def test_calls_are_those_of_the_rule(contigs):
    found = called(contigs)
    for number, chunks in enumerate(contigs):
        call, tier, delta = by_the_book(chunks)
        assert abs(found.deltas[number] - delta) < 1e-6
        if min(abs(abs(delta) - edge) for edge in (0.3, 0.6)) > 1e-6:
            assert CALLS[found.calls[number]] == call
            assert TIERS[found.tiers[number]] == tier


@pytest.mark.parametrize(
    ("chunks", "call", "tier"),
    [
        ([(0.05, 0.95)] * 5, "Viral", "high_confidence"),
        ([(0.95, 0.05)] * 5, "Non-viral", "high_confidence"),
        ([(0.05, 0.95)] * 4, "Viral", "low_confidence"),
        ([(0.3, 0.85)] * 4, "Viral", "review"),
        ([(0.3, 0.85)] * 5, "Viral", "low_confidence"),
        ([(0.3, 0.7)] * 5 + [(0.1, 0.85)], "Viral", "moderate_confidence"),
        ([(0.5, 0.5)] * 9, "Ambiguous", "review"),
        ([(0.75, 0.99)] * 9, "Ambiguous", "review"),
        ([], "none", "none"),
    ],
)
def test_contigs_that_show_the_rule(chunks, call, tier):
    found = called([chunks])
    assert (CALLS[found.calls[0]], TIERS[found.tiers[0]]) == (call, tier)
    assert by_the_book(chunks)[:2] == (call, tier)


def test_contigs_are_in_natural_order():
    names = ["c10", "c2", "c1", "b", "NODE_2_x", "NODE_10_x", "2", "10"]
    assert [names[place] for place in natural_order(names)] == [
        *("2", "10", "NODE_2_x", "NODE_10_x", "b", "c1", "c2", "c10"),
    ]


@given(st.lists(st.text("ab12_", max_size=6), max_size=20))
def test_any_names_have_an_order(names):
    assert sorted(natural_order(names)) == list(range(len(names)))


def test_the_table_has_three_decimals_and_nothing_where_nothing_is_known():
    found = called([[(0.05, 0.95), (0.95, 0.9)], []])
    more = np.array([[100, 2], [7, 1]])
    table = table_of(["b", "a"], found, ("x", "y"), more)
    lines = [line.rstrip("\n").split("\t") for line in table]
    assert lines[0] == [*COLUMNS, "x", "y"]
    assert lines[1] == ["a", "none", "none", "", "0", "0", "0", "0", "", "", "7", "1"]
    delta = f"{by_the_book([(0.05, 0.95), (0.95, 0.9)])[2]:.3f}"
    assert lines[2] == [
        *("b", "Viral", "low_confidence", delta, "2", "1", "0", "1", "1.000", "0.000"),
        *("100", "2"),
    ]


# --- groups of contigs --------------------------------------------------------------------------


def test_contigs_of_one_name_are_two_unless_a_pattern_groups_them():
    groups = Groups()
    assert [groups.add(name) for name in ("a", "b", "a")] == [0, 1, 2]
    assert groups.names == ["a", "b", "a"]


def test_contigs_in_which_a_pattern_finds_the_same_are_together():
    groups = Groups(r"(NODE_\d+)_")
    names = ["NODE_1_length_9", "NODE_2_x", "other", "NODE_1_length_5", "other"]
    assert [groups.add(name) for name in names] == [0, 1, 2, 0, 3]
    assert groups.names == ["NODE_1", "NODE_2", "other", "other"]


def test_a_pattern_without_a_group_is_the_name():
    groups = Groups(r"^[^_]+")
    assert [groups.add(name) for name in ("a_1", "a_2", "b_1")] == [0, 0, 1]
    assert groups.names == ["a", "b"]


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"--group \(: no regular expression"):
        Groups("(")
