"""How to run a failed fuzz test again."""

from collections.abc import Iterator

import pytest

from tests.fuzz.fuzzing import SEED, replay


def pytest_report_header() -> str:
    return f"fuzz: FUZZ_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    if report.failed and report.when == "call":
        report.sections.append(("to run this again", replay(item.nodeid)))
    return report
