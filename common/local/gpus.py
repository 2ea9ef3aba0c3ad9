"""The GPUs of this machine, as the driver lists them: importing torch for that takes seconds."""

import os
import shutil
import subprocess


def visible_gpus() -> list[str]:
    """Return an id for ``CUDA_VISIBLE_DEVICES`` for each GPU that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu.strip() for gpu in allowed.split(",") if gpu.strip() not in {"", "-1"}]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return answer.stdout.split() if answer.returncode == 0 else []
