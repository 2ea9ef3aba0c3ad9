"""Starting the project's own modules by a fork of a process that has imported them.

The parent, the arguments, the environment, the signals and the end of such a process are those of
one that Python starts anew; only the seconds for its imports are saved.
"""

import atexit
import gc
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import GeneratorType
from typing import Any

#: Prefixes of variables that are read when a command runs, not when libraries are imported.
READ_LATE = ("VIRNUCPRO_", "AWS_", "XDG_CACHE_HOME", "PYTEST_", "HUNG", "PATIENCE", "DEADLY")

#: Variables that say nothing where no GPU is, or to the tokenizers of these tests.
WITHOUT_EFFECT = ("CUDA_DEVICE_ORDER", "RAYON_NUM_THREADS")

#: Modules that a process starts which is itself a fork, such as a supervisor its workers.
FORKED = (
    *("workers.cli", "workers.process"),
    *("tests.support.hanging_worker", "tests.support.deadly_worker"),
)

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


def read_early(environment: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return the variables that the interpreter or a library may read before a command runs."""
    return frozenset(item for item in environment.items() if not item[0].startswith(READ_LATE))


def fork_instead_of_starting() -> None:
    """Fork from now on where ``subprocess`` is to start a module of ``FORKED`` by Python."""
    imported_with = known(os.environ)
    start: Callable[..., None] = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def execute(process: Any, args: Any, *more: Any) -> None:
        _, preexec, _, passed, cwd, env, _, _, _, *pipes = more[:15]
        environment = dict(os.environ if env is None else env)
        module, words = module_of(args)
        if module is None or passed or cwd or known(environment) != imported_with:
            start(process, args, *more)
            return
        # Kept in the child: those of threads that it does not have would be closed, and clean up.
        kept = [found for found in gc.get_objects() if isinstance(found, GeneratorType)]
        process.pid = os.fork()
        process._child_created = True
        if process.pid:
            kept.clear()
            process._close_pipe_fds(*pipes)
            return
        os.setsid()
        if preexec is not None:
            preexec()
        standard = [pipes[0], pipes[3], pipes[5]]
        run_and_end(module, words, environment, standard)

    subprocess.Popen._execute_child = execute  # type: ignore[attr-defined]


def known(environment: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(i for i in read_early(environment) if i[0] not in WITHOUT_EFFECT)


def module_of(command: Any) -> tuple[str | None, list[str]]:
    """Return the module that a command of Python runs, if it is of ``FORKED``; its arguments."""
    words = list(command) if isinstance(command, list) else []
    if words[:1] != [sys.executable] or "-m" not in words[:3]:
        return None, []
    at = words.index("-m") + 1
    return (words[at] if words[at] in FORKED else None), words[at + 1 :]


def run_and_end(
    module: str, words: Sequence[str], environment: Mapping[str, str], standard: Sequence[int]
) -> None:
    """Run a module as the main program of this process, which was forked, and end the process."""
    code = 1
    try:
        take_over(standard, environment)
        renew_interpreter()
        sys.argv = [module, *words]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = code_of(error)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def code_of(error: SystemExit) -> int:
    if isinstance(error.code, str):
        sys.stderr.write(f"{error.code}\n")
        return 1
    return error.code or 0


def take_over(standard: Sequence[int], environment: Mapping[str, str]) -> None:
    """Give this process standard streams (-1: as they are) and variables, and no other file."""
    for number, file in enumerate(standard):
        if file not in (-1, number):
            os.dup2(file, number)
    # Their numbers stay in use: an object of the parent that is freed may close its own.
    null = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if number > 2 and number != null and is_open(number):
            os.dup2(null, number, inheritable=False)
    os.environ.clear()
    os.environ.update(environment)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def renew_interpreter() -> None:
    """Undo what the parent set: what is done at the end, handlers, streams and the log."""
    atexit._clear()
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.detach()  # its temporary folders, for instance
    atexit.register(weakref.finalize._exitfunc)  # type: ignore[attr-defined]
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
    logging.captureWarnings(False)
    logging.root.handlers.clear()
    warnings.resetwarnings()
