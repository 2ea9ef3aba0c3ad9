"""The folder of the files between a supervisor and its processes, which others may remove."""

import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

#: Seconds between two times that the files of metrics are touched. Processes change them in memory,
#: so that they look old: cleaners of temporary files remove what is some days old.
TOUCH_SECONDS = 3600.0


class SharedFolder:
    """A temporary folder that is made again if it is removed.

    Attributes:
        metrics: the folder in it for the files of metrics.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="virnucpro-"))
        self.metrics = self.path / "metrics"
        self.metrics.mkdir()
        self._touched = time.monotonic()
        self._cannot_be_made = False

    def keep(self) -> None:
        """Make the folder again if it is gone, and say so once; keep its files from looking old."""
        if not self.metrics.is_dir():
            self._make_again()
        if time.monotonic() - self._touched >= TOUCH_SECONDS:
            self._touched = time.monotonic()
            with suppress(OSError):
                for file in self.metrics.iterdir():
                    os.utime(file)

    def remove(self) -> None:
        """Remove the folder with its files."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _make_again(self) -> None:
        try:
            self.path.mkdir(0o700, exist_ok=True)
            self.metrics.mkdir(exist_ok=True)
        except OSError as error:
            if not self._cannot_be_made:
                log.error(
                    "%s was removed, and cannot be made again (%s): until then, nobody knows how "
                    "the processes of this worker are. They go on.",
                    *(self.path, error),
                )
            self._cannot_be_made = True
            return
        self._cannot_be_made = False
        log.warning(
            "%s was removed, perhaps by a cleaner of temporary files, and is made again. Exclude "
            "it there, or give this worker a TMPDIR of its own.",
            self.path,
        )
