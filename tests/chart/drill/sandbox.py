"""A container: a command with a read-only root, its own ``/tmp``, user 10001 and no capability."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.local.processes import start_dependent
from tests.conftest import ROOT

#: The user and group of the images.
USER = 10001

#: Where a container has this version of the project. It may be below /tmp outside.
INSIDE = Path("/mnt/app")

#: What of this machine stands for the image.
SYSTEM = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64")

#: Seconds for a container's process to be there.
START_SECONDS = 20.0

NAMESPACES = ("--user", "--mount", "--pid", "--uts", "--ipc")


def missing_tools() -> list[str]:
    """Return what this machine lacks to run containers."""
    return [tool for tool in ("bwrap", "nsenter") if shutil.which(tool) is None]


@dataclass(frozen=True)
class Container:
    """A command as it runs, and the process that gets its signals."""

    outer: "subprocess.Popen[bytes]"
    main: psutil.Process
    environment: Mapping[str, str]
    log: Path

    def exit_code(self) -> int | None:
        """Return the code with which it ended; None while it runs."""
        return self.outer.poll()

    def runs(self) -> bool:
        """Return whether its process is there, also of a container that is about to end."""
        with suppress(psutil.NoSuchProcess):
            return self.exit_code() is None and self.main.status() != psutil.STATUS_ZOMBIE
        return False

    def output(self) -> str:
        """Return what it printed, if it ended well."""
        code, printed = self.exit_code(), self.log.read_text()
        assert code == 0, f"exit code {code}: {printed}"
        return printed

    def terminate(self) -> None:
        with suppress(psutil.NoSuchProcess):
            self.main.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all processes of the container."""
        with suppress(psutil.NoSuchProcess):
            self.main.parent().kill()  # process 1, with which all others end
        self.outer.wait()

    def succeeds(self, command: Sequence[str], timeout: float) -> bool:
        """Return whether a command, run inside the container, ends well within some seconds."""
        enter = ["nsenter", f"--target={self.main.pid}", *NAMESPACES, "--preserve-credentials"]
        try:
            done = subprocess.run(
                [*enter, "--", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def start_container(
    command: Sequence[str],
    environment: Mapping[str, str],
    mounts: Mapping[str, tuple[Path, bool]],
    *,
    hostname: str,
    log: Path,
) -> Container:
    """Start a command of an image.

    Args:
        command: ``worker`` or ``producer``, and its arguments.
        mounts: folders outside by the paths that they have inside, and whether they can be written.
    """
    variables = {"HOME": "/tmp", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(INSIDE), **environment}
    module = {"worker": "workers.cli", "producer": "producer.cli"}[command[0]]
    words = [*sandbox(mounts, hostname), "--clearenv"]
    words += [word for name, value in variables.items() for word in ("--setenv", name, value)]
    words += [str(inside(Path(sys.executable))), "-m", module, *command[1:]]
    with log.open("ab") as output:
        outer = start_dependent(words, output=output)
    return Container(outer, main_process(outer, log), variables, log)


def sandbox(mounts: Mapping[str, tuple[Path, bool]], hostname: str) -> list[str]:
    """Return the words with which bubblewrap makes a container's file system and namespaces."""
    words = ["bwrap", "--unshare-user", "--uid", str(USER), "--gid", str(USER)]
    words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", hostname]
    words += ["--cap-drop", "ALL", "--new-session", "--die-with-parent"]
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    for path in {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}:
        if not path.is_relative_to("/usr"):
            words += ["--ro-bind", str(path), str(path)]
    words += ["--dev", "/dev", "--proc", "/proc", "--ro-bind", str(ROOT), str(INSIDE)]
    for place, (folder, writable) in mounts.items():
        words += ["--bind" if writable else "--ro-bind", str(folder), place]
    return [*words, "--chdir", "/", "--remount-ro", "/"]


def inside(path: Path) -> Path:
    """Return where a container has a file of this machine."""
    return INSIDE / path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def main_process(outer: "subprocess.Popen[bytes]", log: Path) -> psutil.Process:
    """Return the command itself, below bubblewrap and process 1 of the container."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and outer.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for first in psutil.Process(outer.pid).children():
                for main in first.children():
                    return main
        time.sleep(0.01)
    raise RuntimeError(f"a container did not start: {log.read_text()[-2000:]}")
