"""A submit that is stopped (Ctrl-Z) for so long that another has done the whole meanwhile."""

import re
import signal
from pathlib import Path

from common.job.manifest import read_manifest
from common.ledger.locks import staging_key
from common.store import FileStore
from tests.faults.checks import assert_nothing_was_lost, keeper, submit
from tests.support.processes import start_command, wait_until


def test_a_submit_that_is_stopped_while_another_finishes_the_job_changes_nothing_of_it(
    fleet, tiny, proteins, reference, tmp_path
):
    """The first cuts the input into batches of another size; nothing of it is used."""
    store = FileStore(tmp_path / "store")
    words = ("submit", proteins, "--model", tiny, "--batch-tokens=200")
    with (tmp_path / "first.log").open("wb") as log:
        first = start_command("producer.cli", *words, environment=fleet.environment, output=log)
    try:
        wait_until(lambda: len(inputs(store.root)) > 20, 30)
        first.send_signal(signal.SIGSTOP)
        (lock,) = fleet.ledger.redis.keys(staging_key("*"))
        fleet.ledger.redis.delete(lock)  # as if its minute were over
        with fleet.running_workers(tiny, tmp_path), keeper(fleet):
            job = submit(fleet, tiny, proteins)
            assert_nothing_was_lost(fleet, job, reference)
            manifest = read_manifest(store, job)
            first.send_signal(signal.SIGCONT)
            assert first.wait(60) == 0
            assert re.search(rf"\b{job}\b", (tmp_path / "first.log").read_text())
            assert read_manifest(store, job) == manifest
            assert manifest.staging
            assert_nothing_was_lost(fleet, job, reference)
    finally:
        first.kill()
        first.wait()


def inputs(root: Path) -> list[Path]:
    return list(root.glob("*/input/*.fasta"))
