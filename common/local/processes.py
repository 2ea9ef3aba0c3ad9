"""Child processes that must not outlive the process that started them."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

#: Lines of a log that are shown to explain why a process ended.
LOG_TAIL = 12


def start_dependent(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    files: Collection[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a process that gets SIGTERM when this one dies, even by SIGKILL (on Linux).

    It has its own session: Ctrl-C in a terminal reaches only this process, which then stops its
    children in the right order.

    Args:
        files: descriptors that it has open, too.
    """
    started: Future[subprocess.Popen[bytes]] = Future()

    def start_and_stay() -> None:
        try:
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=files,
                start_new_session=True,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(process)
        # Without reaping it, which is for the caller.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    # In a thread that lasts as long as the child: to Linux, the parent is the thread that started
    # it, and the caller's may end before.
    threading.Thread(target=start_and_stay, daemon=True).start()
    return started.result()


def end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_of_log(log: Path) -> str:
    """Return the last lines of a process's log, for a message on why it ended."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    return "\n".join(f"  {line}" for line in lines)


def stop(process: "subprocess.Popen[bytes]", grace_seconds: float) -> int:
    """Terminate a process, kill it after ``grace_seconds``, and return its exit code."""
    process.terminate()
    return wait_or_kill(process, grace_seconds)


def wait_or_kill(process: "subprocess.Popen[bytes]", seconds: float) -> int:
    """Wait for a process to end, kill it after ``seconds``, and return its exit code."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
