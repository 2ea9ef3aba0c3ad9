"""Prometheus's tool, which checks metrics and rules."""

import shutil
import subprocess

import pytest


def promtool(*arguments: object, text: str | None = None) -> None:
    """Run promtool, which must succeed; skip the test if it is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check_metrics(text: str) -> None:
    """Have promtool check metrics: their form, their names and their help texts."""
    own = [line for line in text.splitlines() if "virnucpro_" in line]
    promtool("check", "metrics", text="\n".join([*own, ""]))
