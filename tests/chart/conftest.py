"""Which tests are collected without Helm, and the table of ``make chart``."""

import os
from pathlib import Path

import pytest

from tests.chart.validated import table
from tests.support.chart import HELMS, has

#: The files of tests that need no Helm. A test that needs it belongs into another file.
WITHOUT_HELM = (
    *("test_drill_records.py", "test_files.py", "test_hpa.py", "test_network_semantics.py"),
    "test_tools.py",
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out all tests that need Helm where it is not: one test says so for all of them.

    To collect and skip them takes longer than those that are left. A file that the command names
    is collected all the same.
    """
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    if not is_test or collection_path.name in WITHOUT_HELM:
        return None
    return None if has(HELMS[0]) or os.environ.get("CHART_REQUIRED") else True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CHART_REQUIRED"):
        terminalreporter.section("validated with")
        terminalreporter.write_line("\n".join(table()))
