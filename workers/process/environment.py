"""The environment variables by which a supervisor names files to its worker processes."""

import os
from pathlib import Path

#: Names the file that a process writes every second; see ``workers.process.heartbeat``.
HEARTBEAT_FILE = "VIRNUCPRO_HEARTBEAT_FILE"

#: Names the file that a process writes once its model is loaded.
PROCESS_READY_FILE = "VIRNUCPRO_PROCESS_READY_FILE"

#: Names the file for the trace of what a process did when (``worker bench``).
TRACE_FILE = "VIRNUCPRO_TRACE"

#: Gives the place of a process at its supervisor, by which its files of metrics are called.
METRICS_PLACE = "VIRNUCPRO_METRICS_PLACE"


def file_of(variable: str) -> Path | None:
    """Return the file that an environment variable names, if it is set."""
    return Path(os.environ[variable]) if variable in os.environ else None
