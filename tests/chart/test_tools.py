"""What runs without the tools of ``make chart``, and what says that the rest did not."""

import os
import re
import subprocess
import sys

from tests.chart.conftest import WITHOUT_HELM
from tests.support.chart import HELMS, ROOT, run_helm

#: What is set where all must run.
CHART = ("CHART_REQUIRED", "CHART_TOOLS")


def test_helm_is_there():
    """Without it this is the one test that is skipped, for all that need it."""
    for helm in HELMS:
        assert run_helm(helm, "version", "--short").stdout.startswith("v")


def test_without_helm_all_that_needs_none_runs_and_one_test_says_what_is_missing(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in CHART}
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "tests/chart"]
    words += ["-k", "not without_helm"]  # not this test
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**environment, "CHART_TOOLS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [skipped] = re.findall(r"^SKIPPED .*", done.stdout, re.M)
    assert "needs helm4" in skipped
    assert "make chart" in skipped
    [(passed, left_out)] = re.findall(r"(\d+) passed, (\d+) skipped", done.stdout)
    assert (int(passed) > 40, left_out) == (True, "1")


def test_the_files_that_need_no_helm_are_there():
    assert [name for name in WITHOUT_HELM if not (ROOT / "tests" / "chart" / name).is_file()] == []
