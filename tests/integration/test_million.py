"""``benchmarks.million`` with small jobs: its figures, and its end after the time limit."""

import re
import subprocess
import sys


def test_a_small_job_goes_through_two_workers_and_every_figure_is_told():
    command = [sys.executable, "-m", "benchmarks.million", "--batches=2500", "--workers=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-12:]
    figures = dict(re.match(r"(.*?) {2,}(\S+)", line).groups() for line in lines)
    assert figures.pop("batches done") == "2,500"
    numbers = {name: float(re.sub("[,%]", "", figure)) for name, figure in figures.items()}
    assert numbers["messages published by one process, 1/s"] > 0
    assert numbers["batches completed, 1/s"] > 0
    assert numbers["worker processes' CPU for a batch, us"] > 0
    assert 0 < numbers["messages in the queue, most"] <= 2500
    assert 0 < numbers["Redis memory above empty, peak, MB"] < 150


def test_a_job_that_takes_too_long_is_told_as_far_as_it_came():
    command = [sys.executable, "-m", "benchmarks.million", "--batches=2000", "--seconds=1"]
    done = subprocess.run([*command, "--workers=1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert re.search(r"batches done +\d+ of 2,000", done.stdout)
