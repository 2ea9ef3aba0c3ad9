"""The table of what was validated with which tool, after the tests of ``make chart``."""

import os

import pytest

from tests.chart.validated import table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CHART_REQUIRED"):
        terminalreporter.section("validated with")
        terminalreporter.write_line("\n".join(table()))
