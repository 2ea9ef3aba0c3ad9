"""Texts that are printed: nothing in them that a terminal would obey."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from common.text import printable


@given(st.text())
def test_no_control_character_is_printed_but_tab_and_newline(text):
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]


@given(st.text(alphabet=st.characters(exclude_categories=["C"])))
def test_a_text_without_control_characters_is_printed_as_it_is(text):
    assert printable(text) == text


def test_control_characters_are_shown_by_their_escape_sequences():
    assert printable("a\x1b[2J\0\x9b\u202e\r\n") == "a\\x1b[2J\\x00\\x9b\\u202e\\r\n"
