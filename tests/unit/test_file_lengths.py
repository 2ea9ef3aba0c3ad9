"""The files that tests share, and those of the chart, have up to 300 lines: one subject each."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

MOST_LINES = 300


@pytest.mark.parametrize("folder", ["chart", "support"])
def test_no_file_has_more_lines(folder):
    lines = {path: len(path.read_text().splitlines()) for path in (TESTS / folder).rglob("*.py")}
    assert len(lines) > 20
    assert {path.name: count for path, count in lines.items() if count > MOST_LINES} == {}
