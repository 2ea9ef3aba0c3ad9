"""Packs: every segment once and in order, within the budget, as fair-esm's tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.alphabet import ESM2_TOKENS, PROTEIN
from tests.support.fair_esm import ALPHABET
from workers.engine.packing import Pack, make_packs, split_into_packs
from workers.models.esm2.tokenizer import ESM2_TOKENIZER

token_counts = st.lists(st.integers(1, 300), max_size=60)
budgets = st.integers(1, 1000)
proteins = st.text(st.sampled_from(sorted(PROTEIN.letters)), min_size=1, max_size=50)


@given(token_counts, budgets)
def test_packs_hold_every_segment_once_and_in_order(counts, budget):
    parts = [counts[part] for part in split_into_packs(counts, budget)]
    assert [count for part in parts for count in part] == counts
    assert all(parts)


@given(token_counts, budgets)
def test_a_pack_is_over_the_budget_only_if_it_is_a_single_segment(counts, budget):
    for part in split_into_packs(counts, budget):
        assert sum(counts[part]) <= budget or len(counts[part]) == 1


@given(token_counts, budgets)
def test_a_pack_ends_only_where_the_next_segment_does_not_fit(counts, budget):
    for part in split_into_packs(counts, budget):
        assert part.stop == len(counts) or sum(counts[part.start : part.stop + 1]) > budget


@given(st.lists(proteins, min_size=1, max_size=20), st.integers(1, 200))
def test_packed_tokens_are_those_of_fair_esm(sequences, budget):
    packs = list(make_packs(ESM2_TOKENIZER(sequences), budget))
    expected = [ALPHABET.encode(f"<cls>{sequence}<eos>") for sequence in sequences]
    found = [part.tolist() for pack in packs for part in np.split(pack.ids, pack.cu_seqlens[1:-1])]
    assert found == expected
    assert [pack.first for pack in packs] == np.cumsum(
        [0, *(pack.segments for pack in packs[:-1])]
    ).tolist()


def test_every_letter_has_the_token_of_fair_esm():
    letters = sorted(PROTEIN.letters)
    tokens = ESM2_TOKENIZER(["".join(letters)]).ids[1:-1]
    assert tokens.tolist() == [ALPHABET.get_idx(letter) for letter in letters]


def test_the_vocabulary_is_that_of_fair_esm():
    assert list(ESM2_TOKENS) == ALPHABET.all_toks


@pytest.mark.parametrize("stranger", ["J", "*", "m", " ", "\n", "0"])
def test_a_letter_outside_the_alphabet_is_unk(stranger):
    assert ESM2_TOKENIZER([stranger]).ids[1] == ALPHABET.unk_idx


def test_a_pack_says_where_its_segments_lie():
    _, pack = make_packs(ESM2_TOKENIZER(["MK" * 9, "MKT", "G", "AVLIP"]), 20)
    assert isinstance(pack, Pack)
    assert pack.first == 1
    assert pack.cu_seqlens.tolist() == [0, 5, 8, 15]
    assert pack.cu_seqlens.dtype == np.int32
    assert (pack.segments, pack.max_seqlen) == (3, 7)


def test_no_sequences_make_no_packs():
    assert list(make_packs(ESM2_TOKENIZER([]), 100)) == []
