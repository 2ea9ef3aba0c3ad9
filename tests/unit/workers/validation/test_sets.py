"""The sets of a validation: lengths, letters, and the same on every machine."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.model_specs import DNABERT_S, ESM2, Family
from workers.validation.sets import FREQUENCIES, SequenceSet, make_sets, spread_lengths

#: Shortest and longest sequence of each set.
PROTEINS = {
    "short": (1, 49),
    "medium": (50, 200),
    "long": (201, 500),
    "very_long": (501, 1022),
    "mixed": (1, 1022),
}
DNA = {
    "short": (5, 245),
    "medium": (250, 1000),
    "long": (1005, 2500),
    "very_long": (2505, 10_000),
    "mixed": (5, 10_000),
}


@pytest.mark.parametrize(("family", "ranges"), [(ESM2, PROTEINS), (DNABERT_S, DNA)])
@pytest.mark.parametrize("count", [2, 3, 32])
def test_each_set_covers_its_range_ends_included(family: Family, ranges, count: int):
    sets = make_sets(family, count)
    assert [each.name for each in sets] == list(ranges)
    for each in sets:
        assert len(each.sequences) == count
        assert (min(each.lengths), max(each.lengths)) == ranges[each.name]


@pytest.mark.parametrize("family", [ESM2, DNABERT_S])
def test_letters_are_the_familys(family: Family):
    letters = {
        letter for each in make_sets(family, 8) for text in each.sequences for letter in text
    }
    assert letters == set(FREQUENCIES[family.alphabet.name])
    assert letters <= family.alphabet.letters


def test_amino_acids_are_as_frequent_as_in_nature():
    counts = Counter(
        letter for each in make_sets(ESM2, 200) for s in each.sequences for letter in s
    )
    total = sum(counts.values())
    everything = sum(FREQUENCIES["protein"].values())
    for letter, percent in FREQUENCIES["protein"].items():
        tolerance = 0.05 if percent > 1 else 0.3
        assert counts[letter] / total == pytest.approx(percent / everything, rel=tolerance), letter


@pytest.mark.parametrize("alphabet", FREQUENCIES)
def test_frequencies_are_percentages_and_a_little_for_the_rare_letters(alphabet: str):
    assert sum(FREQUENCIES[alphabet].values()) == pytest.approx(100.2, abs=0.4)


@pytest.mark.parametrize(("family", "rare"), [(ESM2, "XBZUO"), (DNABERT_S, "N")])
def test_letters_that_only_few_records_have_are_tried_too(family, rare):
    letters = set().union(*(s for each in make_sets(family, 32) for s in each.sequences))
    assert set(rare) <= letters


def test_the_same_seed_gives_the_same_sequences_and_another_seed_others():
    assert make_sets(ESM2, 4) == make_sets(ESM2, 4)
    assert make_sets(ESM2, 4, seed=1) != make_sets(ESM2, 4, seed=2)


def test_the_sequences_are_those_of_every_machine_and_version():
    expected = ("S", "AACPGHNVCAIAHLINRKALDMGEZVDMDELHNRTPVEGRGREPSGQIY")
    assert make_sets(ESM2, 2)[0] == SequenceSet("short", expected)


def test_sequences_are_not_sorted():
    lengths = make_sets(ESM2, 32)[-1].lengths
    assert list(lengths) not in (sorted(lengths), sorted(lengths, reverse=True))


@given(st.integers(1, 50), st.integers(0, 10_000), st.integers(2, 100))
def test_lengths_rise_from_end_to_end(shortest: int, more: int, count: int):
    lengths = spread_lengths(shortest, shortest + more, count)
    assert (len(lengths), lengths[0], lengths[-1]) == (count, shortest, shortest + more)
    assert (np.diff(lengths) >= 0).all()
