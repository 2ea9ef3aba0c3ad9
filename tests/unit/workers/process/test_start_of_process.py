"""What a worker process writes before it has begun, as lines of its log."""

import json
import subprocess
import sys
from pathlib import Path

import workers
from tests.support.processes import clean_environment

ROOT = Path(workers.__file__).parents[1]

#: A module in the place of PyTorch, which warns and prints, and cannot be imported.
TORCH = """
import sys, warnings
warnings.warn("this driver is old")
print("no GPU today", file=sys.stderr)
print("nor tomorrow")
raise ImportError("libcudart.so: cannot open shared object file")
"""


def test_warnings_and_errors_of_pytorch_while_it_is_imported_are_lines_of_json(tmp_path):
    (tmp_path / "torch.py").write_text(TORCH)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.process", "random:esm2_t6_8M_UR50D", "fp32"],
        env=clean_environment(PYTHONPATH=f"{tmp_path}:{ROOT}", VIRNUCPRO_LOG_FORMAT="json"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert {line["process"] for line in lines} == {"worker"}
    messages = [line["message"] for line in lines]
    for said in ("this driver is old", "no GPU today", "nor tomorrow", "libcudart.so"):
        assert [message for message in messages if said in message], said
    assert "ImportError" in lines[-1]["exception"]
