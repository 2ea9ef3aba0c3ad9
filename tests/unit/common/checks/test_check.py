"""Checks as values: all are made, whatever becomes of one, and each is a line."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.checks.check import (
    HANGS,
    Check,
    Group,
    Outcome,
    as_document,
    failed,
    ok,
    passed,
    run_checks,
    warning,
)
from common.errors import UserError

FINE = [ok("a", "found"), warning("b", "found", "do this")]


def hang() -> Iterator[Check]:
    yield ok("begun", "found")
    threading.Event().wait(60)


def fail() -> Iterator[Check]:
    yield ok("begun", "found")
    raise UserError("redis://user:s3cret@host does not answer")


def crash() -> Iterator[Check]:
    yield from ()
    raise ZeroDivisionError("of what\nmore")


def test_checks_are_made_in_the_order_of_their_groups():
    groups = [Group("x", lambda: iter(FINE)), Group("y", lambda: iter([ok("c", "found")]))]
    assert run_checks(groups) == [*FINE, ok("c", "found")]


def test_one_that_hangs_or_fails_keeps_no_other_from_being_made():
    groups = [
        Group("one", hang, seconds=0.3),
        Group("two", hang, seconds=0.3),
        Group("three", fail),
        Group("four", crash),
        Group("five", lambda: iter(FINE)),
    ]
    started = time.monotonic()
    found = run_checks(groups)
    assert time.monotonic() - started < 20
    begun = ok("begun", "found")
    assert found == [
        *(begun, failed("one", "no answer within 0.3 s", HANGS)),
        *(begun, failed("two", "no answer within 0.3 s", HANGS)),
        *(begun, failed("three", "redis://***@host does not answer")),
        failed("four", "ZeroDivisionError: of what"),
        *FINE,
    ]
    assert not passed(found)


@pytest.mark.parametrize(
    ("check", "line", "plain"),
    [
        (ok("a", "found."), "✓ a: found", "ok a: found"),
        (warning("a", "it is so", "do this"), "! a: it is so: do this", "! a: it is so: do this"),
        (failed("a", "é\n\x1b[1m"), "✗ a: é\\n\\x1b[1m", "FAILED a: ?\\n\\x1b[1m"),
    ],
)
def test_a_check_is_one_line_that_says_what_to_do(check, line, plain):
    assert check.line() == line
    assert check.line(plain=True) == plain


@given(st.builds(Check, st.text(), st.sampled_from(Outcome), st.text(), st.text()))
def test_any_check_is_one_line_that_any_terminal_can_show(check):
    for plain in (True, False):
        assert len(check.line(plain=plain).splitlines()) == 1
    assert check.line(plain=True).isascii()


def test_warnings_are_no_failure():
    assert passed(FINE)
    assert as_document("worker", FINE) == {
        "version": 1,
        "program": "worker",
        "passed": True,
        "checks": [
            {"name": "a", "outcome": "ok", "text": "found", "advice": ""},
            {"name": "b", "outcome": "warning", "text": "found", "advice": "do this"},
        ],
    }
