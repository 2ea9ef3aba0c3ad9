"""What is logged: one line for each record, whatever is in it, and no login of a URL."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.streams import PrintableFormatter

FORGED = 'x\n2026-01-01 ERROR forged\r\x1b[2J\u2028\u202e{"event":"failed"}\x85'


def logged(message: str, *, error: Exception | None = None) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("celery", logging.INFO, "f.py", 1, "%s", (message,), info)
    return PrintableFormatter("%(levelname)s %(message)s").format(record)


@given(st.text())
def test_a_record_is_one_line(text):
    assert len(logged(text).splitlines()) == 1


def test_no_text_from_outside_looks_like_another_record():
    first, *others = logged(FORGED, error=ValueError(FORGED)).splitlines()
    assert first.startswith("INFO x\\n2026")
    assert others
    assert all(line.startswith("  ") for line in others)


@pytest.mark.parametrize("login", ["s3cret", "u:s3cret/w", "u:p/s3cret", "u:p@s3cret"])
def test_no_url_shows_a_login(login):
    assert logged(f"Connected to redis://{login}@host:6379//.").endswith("redis://***@host:6379//.")
