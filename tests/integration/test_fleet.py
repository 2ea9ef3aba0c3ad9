"""A fleet: Redis, a store, workers as processes, and the producer's commands against them."""

import os
import re
import signal
import subprocess

import h5py
import numpy as np

from common.checks.rights import commands_of
from common.ledger.progress import Progress
from common.local.embedded_redis import redis_server
from common.store import S3Store
from common.wire.queues import Queues
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import TINY
from tests.support.processes import run_producer, start_command, wait_until
from tests.support.results import load, read_fasta

MANY = "--batch-tokens=2000"


def test_a_fleet_on_s3_and_a_local_run_give_the_same_rows_in_the_same_order(
    s3_fleet, tiny, disprot, tmp_path
):
    """The whole DisProt file, with two workers and a bucket, and with --local and a folder."""
    with s3_fleet.workers(tiny, tmp_path, count=2) as logs:
        done = s3_fleet.producer(
            *("submit", disprot, "--model", tiny, "--batch-tokens=8000"),
            *("-o", tmp_path / "fleet.h5"),
        )
        assert done.returncode == 0, done.stderr
    assert all(" sequences in " in log.read_text() for log in logs)  # both had a part in it
    local = run_producer(
        "submit",
        disprot,
        "--local",
        "--model",
        tiny,
        "--batch-tokens=20000",
        "-o",
        tmp_path / "local.h5",
        cwd=tmp_path,
    )
    assert local.returncode == 0, local.stderr
    one, other = load(tmp_path / "fleet.h5"), load(tmp_path / "local.h5")
    assert one.keys() == other.keys()
    assert one["rows"].tolist() == list(range(1162))
    for name in one.keys() - {"mean"}:
        assert (one[name] == other[name]).all(), name
    # Batches and packs were different ones: sums in another order, nothing more.
    assert np.abs(one["mean"] - other["mean"]).max() < 2e-6


def test_a_job_is_submitted_watched_and_fetched_by_its_name(fleet, tiny, examples, tmp_path):
    submitted = fleet.producer("submit", examples, "--model", tiny)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    assert f"worker start --model {tiny}" in submitted.stderr
    assert re.search(r"queued .* 0/\d+ .* 0/25", fleet.producer("jobs").stdout)
    early = fleet.producer("fetch", job, "-o", tmp_path / "e.h5")
    assert early.returncode == 3
    assert "have no output yet" in early.stderr
    assert not (tmp_path / "e.h5").exists()
    with fleet.workers(tiny, tmp_path):
        assert fleet.producer("watch", job).returncode == 0
        overview = fleet.producer("status").stdout
        assert "CPU" in overview
        assert "finished" in overview
    assert "25 of 25" in fleet.producer("status", job).stdout
    fetched = fleet.producer("fetch", job, "-o", tmp_path / "e.h5")
    assert fetched.returncode == 0, fetched.stderr
    assert len(load(tmp_path / "e.h5")["rows"]) == 25
    assert commands_given(fleet) <= COMMANDS_TRIED


#: What the doctors try, what every connection gives, and what starts this Redis.
COMMANDS_TRIED = {
    *(str(name).lower() for role in ("producer", "worker") for name, *_ in commands_of(role, 0)),
    *("info", "multi", "exec", "select", "hello", "client", "unwatch", "punsubscribe", "config"),
}


def commands_given(fleet) -> set[str]:
    """Return the names of all commands that a fleet's Redis was given."""
    given = fleet.ledger.redis.info("commandstats")
    return {name.removeprefix("cmdstat_").partition("|")[0] for name in given}


def test_a_cancelled_job_is_not_computed_until_it_is_submitted_again(
    fleet, tiny, examples, tmp_path
):
    submit = ["submit", examples, "--model", tiny, MANY]
    job = fleet.producer(*submit).stdout.strip()
    cancelled = fleet.producer("cancel", job)
    assert cancelled.returncode == 0, cancelled.stderr
    assert f"To resume it: producer resume {job}\n" in cancelled.stderr
    assert "cancelled" in fleet.producer("jobs").stdout
    watched = fleet.producer("watch", job)
    assert (watched.returncode, "was cancelled" in watched.stderr) == (2, True)
    with fleet.workers(tiny, tmp_path):
        wait_until(
            lambda: not Queues(fleet.ledger.redis).length(fleet.ledger.jobs.progress(job).queue), 30
        )
        assert fleet.ledger.jobs.progress(job).batches_done == 0
        assert fleet.producer(*submit, "-o", tmp_path / "e.h5").returncode == 0
    assert len(load(tmp_path / "e.h5")["rows"]) == 25
    late = fleet.producer("cancel", job)
    assert (late.returncode, "nothing to cancel" in late.stderr) == (2, True)
    assert fleet.producer("cancel", "none").returncode == 2


def test_verify_finds_a_damaged_shard_and_submitting_again_repairs_it(
    fleet, tiny, examples, tmp_path
):
    submit = ["submit", examples, "--model", tiny, MANY]
    job = fleet.producer(*submit).stdout.strip()
    with fleet.workers(tiny, tmp_path):
        assert fleet.producer("watch", job).returncode == 0
        whole = fleet.producer("verify", job)
        assert whole.returncode == 0, whole.stderr
        shard = sorted((tmp_path / "store" / job / "output").iterdir())[1]
        with h5py.File(shard, "r+") as file:
            file["mean"][0, 0] += 1
        damaged = fleet.producer("verify", job)
        assert damaged.returncode == 1
        assert f"{shard.name} cannot be read (mean has another checksum" in damaged.stderr
        shard.unlink()
        assert fleet.producer(*submit).returncode == 0
        assert fleet.producer("watch", job).returncode == 0
    assert fleet.producer("verify", job).returncode == 0


def test_an_input_in_the_bucket_is_read_from_there(s3_fleet, tiny, examples, tmp_path, monkeypatch):
    for name, value in s3_fleet.environment.items():
        monkeypatch.setenv(name, value)
    S3Store("embeddings", "").put("inputs/p.fasta", examples.read_bytes())
    with s3_fleet.workers(tiny, tmp_path):
        done = s3_fleet.producer(
            *("submit", "s3://embeddings/inputs/p.fasta", "--model", tiny),
            *("-o", tmp_path / "e.h5"),
        )
    assert done.returncode == 0, done.stderr
    assert len(load(tmp_path / "e.h5")["rows"]) == len(read_fasta(examples))


def test_standard_input_is_read_as_a_file_is(fleet, tiny, examples, tmp_path):
    with fleet.workers(tiny, tmp_path):
        done = fleet.producer(
            *("submit", "-", "--model", tiny, "-o", tmp_path / "e.h5"), stdin=examples.read_bytes()
        )
    assert done.returncode == 0, done.stderr
    assert len(load(tmp_path / "e.h5")["rows"]) == len(read_fasta(examples))


def test_a_batch_whose_worker_is_killed_is_computed_by_another(fleet, tiny, some_disprot, tmp_path):
    """After SIGKILL the supervisor starts a new process, the lease expires, and rows count once."""
    with fleet.workers(tiny, tmp_path, count=2):
        job = fleet.producer("submit", some_disprot, "--model", tiny, MANY).stdout.strip()
        wait_until(lambda: fleet.ledger.jobs.progress(job).leased, 60)
        owner = wait_until(lambda: fleet.ledger.redis.hvals(f"virnucpro:job:{job}:owners"), 60)[0]
        os.kill(int(owner.split("@")[0].split("-")[1]), signal.SIGKILL)
        watched = fleet.producer("watch", job)
        assert watched.returncode == 0, watched.stderr
        assert "requeued from lost workers" in watched.stderr
    progress = fleet.ledger.jobs.progress(job)
    assert progress.batches_done == progress.batches
    assert progress.rows_done == 400
    fetched = fleet.producer("fetch", job, "-o", tmp_path / "e.h5")
    assert fetched.returncode == 0, fetched.stderr
    assert load(tmp_path / "e.h5")["rows"].tolist() == list(range(400))


def test_a_worker_with_other_weights_leaves_a_job_to_those_who_began_it(
    fleet, oracle, examples, tmp_path
):
    """Two hosts have different weights under one path: no job is computed with both.

    The file changes while the workers load it, and is as it was when the producer looks.
    """
    path = save_fair_esm(oracle, tmp_path / "model.pt")
    with fleet.workers(path, tmp_path):
        first = fleet.producer("submit", examples, "--model", path, "-o", tmp_path / "e.h5")
    assert first.returncode == 0, first.stderr
    job = fleet.ledger.jobs.names()[0]
    original = path.read_bytes()
    save_fair_esm(random_fair_esm(TINY, seed=1), path)
    fleet.ledger.redis.hset(f"virnucpro:job:{job}", "state", "open")
    fleet.ledger.redis.delete(f"virnucpro:job:{job}:done:fp16")
    with fleet.workers(path, tmp_path) as logs:
        path.write_bytes(original)
        again = fleet.producer("submit", examples, "--model", path)
        assert again.returncode == 0, again.stderr
        assert "it began with weights" in again.stderr
        wait_until(lambda: "other weights" in logs[0].read_text(), 30)
    assert fleet.ledger.jobs.progress(job).leased == 0


def test_a_layer_the_model_lacks_fails_the_batch_and_says_so(fleet, tiny, examples, tmp_path):
    with fleet.workers(tiny, tmp_path):
        done = fleet.producer(
            *("submit", examples, "--model", tiny, "--layers", "5"), "-o", tmp_path / "e.h5"
        )
    assert done.returncode == 1
    assert "Layer 5: this model has layers 0 to 2" in done.stderr
    assert not (tmp_path / "e.h5").exists()


def test_a_worker_stopped_by_sigterm_leaves_nothing_claimed(fleet, tiny, disprot, tmp_path):
    with fleet.workers(tiny, tmp_path):
        job = fleet.producer("submit", disprot, "--model", tiny, MANY).stdout.strip()
        wait_until(lambda: fleet.ledger.jobs.progress(job).leased, 60)
    progress = fleet.ledger.jobs.progress(job)
    assert progress.leased == 0
    assert not fleet.ledger.workers.all()
    assert (
        progress.batches_done + Queues(fleet.ledger.redis).length(progress.queue)
        == progress.batches
    )


def test_a_wiped_redis_is_told_by_the_store_what_was_done(fleet, tiny, examples, tmp_path):
    with fleet.workers(tiny, tmp_path):
        fleet.producer("submit", examples, "--model", tiny, "-o", tmp_path / "one.h5")
        done_before = fleet.ledger.jobs.progress(fleet.ledger.jobs.names()[0])
        fleet.ledger.redis.flushall()
        again = fleet.producer("submit", examples, "--model", tiny, "-o", tmp_path / "two.h5")
    assert again.returncode == 0, again.stderr
    assert f"0 of {done_before.batches} batches to do" in again.stderr
    assert (load(tmp_path / "one.h5")["mean"] == load(tmp_path / "two.h5")["mean"]).all()


def test_a_shard_that_was_deleted_is_computed_anew_and_the_others_are_not(
    fleet, tiny, examples, tmp_path
):
    submit = ("submit", examples, "--model", tiny, "--batch-tokens=1500", "-o", tmp_path / "e.h5")
    with fleet.workers(tiny, tmp_path):
        assert fleet.producer(*submit).returncode == 0
        first, *others = sorted((tmp_path / "store").glob("*/output/*.h5"))
        before = {path: path.stat().st_mtime_ns for path in others}
        first.unlink()
        again = fleet.producer(*submit)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in others} == before
    assert load(tmp_path / "e.h5")["rows"].tolist() == list(range(25))


def test_a_named_pipe_is_read_once_and_to_its_end(fleet, tiny, examples, tmp_path):
    """A pipe, as in ``producer submit <(zcat …)``."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with fleet.workers(tiny, tmp_path), subprocess.Popen(["cp", examples, pipe]):
        done = fleet.producer("submit", pipe, "--model", tiny, "-o", tmp_path / "e.h5")
    assert done.returncode == 0, done.stderr
    assert len(load(tmp_path / "e.h5")["rows"]) == 25


def test_a_redis_that_restarts_with_its_data_delays_a_job_and_loses_nothing(
    fleet, tiny, some_disprot, tmp_path, sockets
):
    output = tmp_path / "e.h5"
    command = ("producer.cli", "submit", some_disprot, "--model", tiny, MANY, "-o", output)
    log = tmp_path / "producer.log"
    with fleet.workers(tiny, tmp_path), log.open("wb") as file:
        process = start_command(*command, environment=fleet.environment, output=file)
        wait_until(lambda: any(job.batches_done for job in jobs_of(fleet)), 60)
        fleet.ledger.redis.shutdown(save=True)
        with redis_server(sockets / "redis.sock"):
            process.wait(120)
    message = log.read_text()
    assert process.returncode == 0, message
    assert "Traceback" not in message
    assert load(output)["rows"].tolist() == list(range(400))


def jobs_of(fleet) -> list[Progress]:
    return [job for job in map(fleet.ledger.jobs.progress, fleet.ledger.jobs.names()) if job]
