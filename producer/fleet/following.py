"""Writing a job's file in a thread, while another one waits for the job."""

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from common.errors import UserError
from common.job.manifest import Manifest
from common.ledger.ledger import Ledger
from common.store import Store
from common.text import counted_bytes
from producer.fleet.output import Output
from producer.fleet.output_file import Target
from producer.output.fetch import Fetched
from producer.output.followed import AbandonedError, ChangedError, Pace, follow

log = logging.getLogger(__name__)


class FollowedFile:
    """The file of a job that is under way.

    Whatever prevents that it is written meanwhile, it can be fetched at the job's end.
    """

    def __init__(
        self, store: Store, ledger: Ledger, manifest: Manifest, output: Output, pace: Pace
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._manifest = manifest
        self._output = output
        self._pace = pace
        self._fetched: Fetched | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)

    @property
    def problem(self) -> UserError | None:
        """Why the file is not written while the job runs; None if it is."""
        return self._error if isinstance(self._error, UserError) else None

    def finish(self) -> Fetched | None:
        """Return what was written, of a job that is finished; None if the file must be fetched."""
        self._pace.end()
        self._thread.join()
        return self._fetched

    def _run(self) -> None:
        try:
            with self._output.target() as target:
                fetched = self._write(target)
            self._fetched = replace(fetched, path=self._output.place)
        except (AbandonedError, ChangedError):
            pass
        except Exception as error:
            self._error = error
            if self.problem is None:  # users are told of others by whoever waits
                log.warning("%s is written at the end: %r", self._output.place, error)

    def _write(self, target: Target) -> Fetched:
        def check_room(needed: int) -> None:
            target.check_room(needed)
            free = shutil.disk_usage(target.path.parent).free
            if free < needed:
                raise UserError(
                    f"{target.path} will have about {counted_bytes(needed)}, and "
                    f"{counted_bytes(free)} are free there."
                )

        return follow(
            *(self._store, self._ledger, self._manifest, target.path, self._pace),
            wanted=self._output.wanted,
            before_replacing=target.before_replacing,
            check_room=check_room,
        )

    @contextmanager
    def being_written(self) -> Iterator[None]:
        """Write the file until the end of the block, at which nothing is left but a whole one."""
        self._thread.start()
        try:
            yield
        finally:
            self._pace.abandon()
            self._thread.join()
