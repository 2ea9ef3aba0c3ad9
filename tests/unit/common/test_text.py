"""Texts that are printed: nothing in them that a terminal would obey."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.text import counted_bytes, duration, one_line, printable, without_login


@given(st.text())
def test_no_control_character_is_printed_but_tab_and_newline(text):
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]


@given(st.text(alphabet=st.characters(exclude_categories=["C"])))
def test_a_text_without_control_characters_is_printed_as_it_is(text):
    assert printable(text) == text


def test_control_characters_are_shown_by_their_escape_sequences():
    assert printable("a\x1b[2J\0\x9b\u202e\r\n") == "a\\x1b[2J\\x00\\u009b\\u202e\\r\n"


@given(st.text())
def test_one_line_is_one(text):
    assert len(one_line(text).splitlines()) <= 1


def test_a_text_is_printable_wherever_it_is_written():
    halves = "".join(map(chr, range(0xD800, 0xE000)))
    assert printable(f"\u2028\u200f\ufeff{halves}").isascii()


@given(st.text())
def test_json_is_still_json_once_it_is_printable(text):
    assert json.loads(printable(json.dumps([text], ensure_ascii=False))) == [text]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://user:secret@host:9000/x.", "at http://***@host:9000/x."),
        ("redis://secret@host and redis://:a@b@host", "redis://***@host and redis://***@host"),
        ("redis://u:p/secret@host, unix://:a/b@/x.sock", "redis://***@host, unix://***@/x.sock"),
        ("s3://bucket/a@b, a@b", "s3://bucket/a@b, a@b"),
    ],
)
def test_the_login_of_a_url_is_not_shown(text, shown):
    assert without_login(text) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (18_420, "5 h 07 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_as_people_say_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (4_200_000, "4.2 MB"),
        (10**13, "10.0 TB"),
        (10**19, "10000.0 PB"),
    ],
)
def test_bytes_are_counted_in_units_of_a_thousand(number, text):
    assert counted_bytes(number) == text
