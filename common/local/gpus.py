"""The GPUs of this machine, as the driver lists them: importing torch for that takes seconds."""

import os
import shutil
import subprocess

QUERY = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")

#: Seconds that the driver has to list its GPUs.
ANSWER_SECONDS = 30


def visible_gpus() -> list[str]:
    """Return an id for ``CUDA_VISIBLE_DEVICES`` for each GPU that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu.strip() for gpu in allowed.split(",") if gpu.strip() not in {"", "-1"}]
    if shutil.which(QUERY[0]) is None:
        return []
    answer = ask_driver()
    return answer.stdout.split() if answer.returncode == 0 else []


def why_no_gpu() -> str:
    """Return why ``visible_gpus`` found none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return "CUDA_VISIBLE_DEVICES names none"
    if shutil.which(QUERY[0]) is None:
        return "there is no nvidia-smi"
    answer = ask_driver()
    said = (answer.stdout + answer.stderr).strip().partition("\n")[0].rstrip(".")
    return f"nvidia-smi says: {said or 'nothing'}"


def ask_driver() -> "subprocess.CompletedProcess[str]":
    """Run nvidia-smi; one that hangs counts as failed."""
    try:
        return subprocess.run(
            QUERY, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        said = f"no answer within {ANSWER_SECONDS} s"
        return subprocess.CompletedProcess(QUERY, 1, "", said)
