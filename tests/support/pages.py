"""Pages of documentation whose blocks run one after another, as a reader would run them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT
from tests.support.processes import run_producer

#: Where a program of its own finds this project, and what these tests run with.
PACKAGES = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block of ``docs/PAGE``, in order."""
    text = (ROOT / "docs" / page).read_text()
    fence = rf"^```({'|'.join(languages)})\n(.*?)^```"
    return re.findall(fence, text, re.MULTILINE | re.DOTALL)


def run_blocks(
    found: list[tuple[str, str]],
    folder: Path,
    environment: Mapping[str, str],
    replace: Mapping[str, str],
) -> list[str]:
    """Run blocks of commands and of Python in a folder; return what each block printed.

    Args:
        replace: What stands in a block, and what is run in its place: models that are not
            downloaded here, for instance.
    """
    printed = []
    variables = dict(environment)
    for language, block in found:
        for old, new in replace.items():
            block = block.replace(old, new)
        if language == "python":
            printed.append(run_program([sys.executable, "-c", block], folder, variables))
        else:
            lines = block.splitlines()
            printed.append("".join(run_line(line, folder, variables) for line in lines))
    return printed


def run_line(line: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a line of a shell block; ``export`` changes the variables of those that follow."""
    if line.startswith("export "):
        script = f"{line}; env -0"
        shown = run_program(["bash", "-euc", script], folder, variables)
        variables.update(item.split("=", 1) for item in shown.split("\0") if "=" in item)
        return ""
    if not line.startswith("producer "):
        return run_program(["bash", "-euc", line], folder, variables)
    words = shlex.split(line)
    words = [variables[word[1:]] if word.startswith("$") else word for word in words]
    done = run_producer(*words[1:], cwd=folder, environment=variables)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout + done.stderr


def run_program(words: list[str], folder: Path, variables: Mapping[str, str]) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env={**variables, "PYTHONPATH": PACKAGES, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words[-1]}: {done.stderr}"
    return done.stdout
