"""Duplicate ids: counted exactly, in memory and on disk."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.input.duplicates import DuplicateCounter

#: Few different ids, so that most occur more than once.
ids = st.lists(st.text("ab/ é中", max_size=2), max_size=200)


def count(ids: Iterable[str], in_memory: int) -> int:
    counter = DuplicateCounter(in_memory)
    for text in ids:
        counter.add([text])
    return counter.duplicates()


@given(ids, st.integers(1, 300))
def test_every_record_with_an_earlier_id_counts(ids, in_memory):
    expected = sum(times - 1 for times in Counter(ids).values())
    assert count(ids, in_memory) == expected


@given(ids, ids, st.integers(1, 50))
def test_a_count_on_the_way_changes_nothing(first, second, in_memory):
    counter = DuplicateCounter(in_memory)
    for part in (first, second):
        for text in part:
            counter.add([text])
        found = counter.duplicates()
    assert found == counter.duplicates() == count([*first, *second], in_memory)


@pytest.mark.parametrize("in_memory", [200, 1000, 1_000_000])
def test_ids_far_apart_are_found_however_much_is_on_disk(in_memory):
    ids = [f"r{number}" for number in [*range(10_000), *range(0, 10_000, 100)]]
    assert count(ids, in_memory) == 100


def test_none_are_no_duplicates():
    assert count([], 10) == 0
