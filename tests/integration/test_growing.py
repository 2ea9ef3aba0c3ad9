"""A job that is computed while it is staged: real processes, Redis and S3."""

import signal
import subprocess
import sys

from common.job.layout import opening_key
from common.ledger.locks import staging_key
from common.ledger.progress import JobState
from common.store import open_store
from tests.support.processes import wait_until
from tests.support.results import load

#: A producer that opens its job with the first batch, and takes a while for each of the others.
SLOW_PRODUCER = """
import time
from producer.cli import main
from producer.submission import growing, staging

growing.PORTION_SECONDS, growing.MOST_OF_TIME = 0.0, 1e9
described = staging.Described.opening

def opening(*given):
    time.sleep(0.2)
    return described(*given)

staging.Described.opening = opening
main()
"""


def test_a_producer_that_is_killed_while_its_job_is_computed_begins_it_anew(
    s3_fleet, tiny, examples, tmp_path, monkeypatch
):
    for name, value in s3_fleet.environment.items():
        monkeypatch.setenv(name, value)
    ledger = s3_fleet.ledger
    submit = ("submit", examples, "--model", tiny, "--batch-tokens=500")
    with s3_fleet.workers(tiny, tmp_path):
        command = [sys.executable, "-c", SLOW_PRODUCER, *map(str, submit)]
        with subprocess.Popen(command, env=s3_fleet.environment) as first:
            wait_until(lambda: any(map(batches_done(ledger), ledger.jobs.names())), 60)
            first.send_signal(signal.SIGSTOP)
            (job,) = ledger.jobs.names()
            progress = ledger.jobs.progress(job)
            status = s3_fleet.producer("status", job)
            watch = s3_fleet.producer("watch", job)
            cancel = s3_fleet.producer("cancel", job)
            first.send_signal(signal.SIGKILL)
        assert progress.state is JobState.STAGING
        assert progress.records < 25
        assert "more are being staged" in status.stdout
        assert (watch.returncode, "is still being staged" in watch.stderr) == (3, True)
        assert "the command that submits it ends, and deletes it" in cancel.stderr
        ledger.redis.delete(staging_key(job))  # it would expire after a minute
        again = s3_fleet.producer(*submit, "-o", tmp_path / "out.h5")
        assert again.returncode == 0, again.stderr
    assert load(tmp_path / "out.h5")["rows"].tolist() == list(range(25))
    finished = ledger.jobs.progress(job)
    assert (finished.state, finished.rows_done) == (JobState.FINISHED, 25)
    assert not list(open_store(s3_fleet.store_url).keys(opening_key(job)))
    assert s3_fleet.producer("verify", job).returncode == 0


def batches_done(ledger):
    return lambda job: ledger.jobs.progress(job).batches_done
