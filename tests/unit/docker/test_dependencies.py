"""``docker/dependencies.py`` prints what pip is to install before the application."""

import subprocess
import sys

from tests.conftest import ROOT


def printed(*extras: str) -> list[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docker" / "dependencies.py", *extras],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def test_the_project_s_own_requirements_come_first_and_those_of_extras_after():
    plain = printed()
    assert any(line.startswith("celery") for line in plain)
    assert not any(line.startswith("torch") for line in plain)
    with_worker = printed("worker")
    assert with_worker[: len(plain)] == plain
    assert any(line.startswith("torch") for line in with_worker[len(plain) :])


def test_an_extra_that_names_another_brings_what_the_other_needs():
    local = printed("local")
    assert set(printed("worker")) < set(local)
    assert len(local) == len(set(local))
    assert not any("virnucpro" in line for line in local)
