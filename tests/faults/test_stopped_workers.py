"""Workers that are told to stop."""

import signal
import time

from tests.faults.checks import (
    assert_nothing_was_lost,
    progress_of,
    submit,
    wait_for_batches,
)


def test_a_worker_told_to_stop_ends_within_a_stage_and_leaves_nothing_claimed(
    fleet, tiny, proteins, reference, tmp_path
):
    with fleet.running_workers(tiny, tmp_path) as [worker]:
        job = submit(fleet, tiny, proteins)
        wait_for_batches(fleet, job)
        asked = time.monotonic()
        worker.process.send_signal(signal.SIGTERM)
        worker.supervisor.terminate()
        assert worker.supervisor.wait(20) == 0
        assert time.monotonic() - asked < 5
        left = progress_of(fleet, job)
        assert left.leased == 0
        assert fleet.ledger.workers() == []
        assert left.batches_done + fleet.ledger.queued(left.queue) == left.batches
    with fleet.running_workers(tiny, tmp_path):
        # Without a keeper: every message is there still.
        assert_nothing_was_lost(fleet, job, reference)
