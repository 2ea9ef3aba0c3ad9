"""Child processes: who ends them, and who does not."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.local.processes import start_dependent, stop

FOREVER = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_child_outlives_the_thread_that_asked_for_it():
    children = []
    thread = threading.Thread(target=lambda: children.append(start_dependent(FOREVER)))
    thread.start()
    thread.join()
    (child,) = children
    time.sleep(0.3)
    assert child.poll() is None
    assert stop(child, 5) < 0


def test_a_child_ends_with_its_parent():
    code = (
        "import sys; from common.local.processes import start_dependent;"
        f"child = start_dependent({FOREVER!r}); print(child.pid, flush=True);"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    deadline = time.monotonic() + 5
    while is_alive(int(parent.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(int(parent.stdout))


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_command_that_does_not_exist_is_an_error_of_the_caller():
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        start_dependent(["no-such-command"])
