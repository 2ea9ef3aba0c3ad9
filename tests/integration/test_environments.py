"""Environments in which a command works, or says in one message what to change."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import clean_environment, running_fleet

#: Kilobytes of address space: enough for Python, and too few for PyTorch.
TOO_LITTLE = 400_000

#: Enough for PyTorch, and too few for the largest model but one.
TOO_LITTLE_FOR_A_MODEL = 4_000_000


def run_with(shell: str, cwd: Path, *command: object) -> "subprocess.CompletedProcess[str]":
    """Run a command after a line of a shell."""
    words = shlex.join([sys.executable, "-m", *map(str, command)])
    return subprocess.run(
        ["bash", "-c", f"{shell}\nexec {words}"],
        env=clean_environment(PYTHONPATH=str(Path.cwd())),
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize(
    "shell",
    [
        "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii; ulimit -n 64",
        "export LC_ALL=xx_YY.UTF-9 XDG_CACHE_HOME=/proc/none TMPDIR=/nowhere; unset HOME",
    ],
)
def test_a_local_run_works_whatever_the_locale_the_limits_and_the_folders(shell, tiny, tmp_path):
    text = ">\u00e9 \u2603\nMKVLGAST\n"
    (tmp_path / "in.fasta").write_text(text, encoding="utf-8")
    submit = ("submit", "in.fasta", "--local", "--gpus=none", "--model", tiny, "-o", "e.h5")
    done = run_with(shell, tmp_path, "producer.cli", *submit)
    assert done.returncode == 0, done.stderr
    assert "Wrote 1 embedding to e.h5" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "--seconds=1", "--gpus=none", "--model=random:esm2_t6_8M_UR50D"),
        ("validate", "--device=cpu", "--model=random:esm2_t6_8M_UR50D"),
    ],
)
def test_a_command_without_memory_says_so_in_one_message(command, tmp_path):
    done = run_with(f"ulimit -v {TOO_LITTLE}", tmp_path, "workers.cli", *command)
    assert done.returncode == 2, done.stderr
    assert "This process has no memory left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_process_without_memory_is_one_that_is_started_again(sockets, tmp_path):
    with running_fleet(sockets, f"file://{tmp_path}/store") as fleet:
        variables = {"VIRNUCPRO_BROKER_URL": fleet.broker_url, "VIRNUCPRO_STORE": fleet.store_url}
        named = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        shell = "; ".join([*named, f"ulimit -v {TOO_LITTLE_FOR_A_MODEL}"])
        words = ("workers.process", "random:esm2_t36_3B_UR50D", "fp32")
        done = run_with(shell, tmp_path, *words)
    assert done.returncode == 1, done.stderr
    assert "This process has no memory left" in done.stderr
    assert "Traceback" not in done.stderr
