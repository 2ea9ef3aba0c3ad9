"""Contigs are never split between the training set and the held-out set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.virnucpro.split import chunk_numbers, class_weights, held_out_rows


@given(
    others=st.integers(2, 30),
    virus=st.integers(2, 30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
)
def test_each_class_has_whole_contigs_on_either_side(others, virus, share, seed):
    draw = np.random.default_rng(seed)
    numbers = draw.permutation(1000)[: others + virus]
    of_contig = np.arange(others + virus) >= others
    frames = draw.permutation(np.repeat(np.arange(others + virus), 3))
    labels, groups = of_contig[frames].astype(int), numbers[frames]
    held_out = held_out_rows(labels, groups, share, draw)
    assert not set(groups[held_out]) & set(groups[~held_out])
    for label, count in ((0, others), (1, virus)):
        contigs = len(set(groups[held_out & (labels == label)]))
        assert 1 <= contigs <= count - 1
        assert abs(contigs - share * count) <= 1


def test_the_split_does_not_depend_on_the_order_of_rows():
    groups = np.repeat(np.arange(20), 4)
    labels = groups % 2
    first = held_out_rows(labels, groups, 0.3, np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(80)
    second = held_out_rows(labels[order], groups[order], 0.3, np.random.default_rng(1))
    assert set(groups[first]) == set(groups[order][second])


def test_chunks_of_two_contigs_differ_though_their_numbers_are_equal():
    groups, chunks = np.array([7, 7, 7, 3, 3]), np.array([1, 1, 2, 1, 2])
    numbers = chunk_numbers(groups, chunks)
    assert numbers[0] == numbers[1]
    assert len(set(numbers.tolist())) == 4


def test_weights_of_classes_make_both_count_alike():
    labels = np.array([1] * 3 + [0] * 97)
    others, virus = class_weights(labels)
    assert virus * 3 == pytest.approx(others * 97)
    assert virus * 3 + others * 97 == pytest.approx(100)
