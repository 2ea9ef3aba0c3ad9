"""Advice: every command that a message names works as it is printed, where it is printed."""

import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.job.manifest import read_manifest
from common.ledger.progress import JobState
from common.local.processes import stop
from common.store import open_store
from tests.integration.test_local import processes_of
from tests.support.jobs import failed, ok, unstable
from tests.support.processes import (
    Fleet,
    clean_environment,
    run_producer,
    start_command,
    wait_until,
)
from tests.support.results import load
from tests.support.shards import store_shard

RANDOM = "random:esm2_t6_8M_UR50D"
TWO = b">a\nMKTAYIAK\n>b\nGAVL\n"
SUBMIT = ("--model", RANDOM, "--batch-tokens", "10")


def advised(text: str) -> list[list[str]]:
    """Return the arguments of every command that a text names; all are the end of a line."""
    commands = re.findall(r"producer ([a-z]+ \S+-.*)$", text, re.MULTILINE)
    return [shlex.split(words) for words in commands]


def follow(text: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None):
    """Run the last command that a text names."""
    done = run_producer(*advised(text)[-1], environment=environment, cwd=cwd)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(params=["environment", "options"])
def named(fleet: Fleet, request) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The options and the environment that name a fleet, in one way or the other."""
    if request.param == "environment":
        return (), fleet.environment
    return ("--store", fleet.store_url, "--broker", fleet.broker_url), clean_environment()


@pytest.mark.parametrize("more", [(), ("--new",)], ids=["stdin", "new"])
def test_a_cancelled_job_goes_on_as_the_message_says_whatever_its_input(fleet, named, more):
    options, environment = named
    submitted = run_producer(
        "submit", "-", *SUBMIT, *more, *options, environment=environment, stdin=TWO
    )
    job = submitted.stdout.strip()
    assert [words[0] for words in advised(submitted.stderr)[-2:]] == ["watch", "fetch"]
    redis_alone = [word for word in options if word not in ("--store", fleet.store_url)]
    cancelled = run_producer("cancel", job, *redis_alone, environment=environment)
    watched = run_producer("watch", job, *options, environment=environment)
    refused = run_producer("retry", job, *options, environment=environment)
    assert (watched.returncode, refused.returncode) == (2, 2)
    assert "resume" in cancelled.stderr
    for message in (watched.stderr, refused.stderr):
        assert fleet.ledger.jobs.cancel(job) is JobState.CANCELLED
        done = follow(message, environment)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 batches" in done.stderr
        assert [words[0] for words in advised(done.stderr)] == ["watch", "fetch"]
        assert fleet.ledger.jobs.progress(job).state is JobState.OPEN
    assert fleet.ledger.jobs.names() == [job]


def test_a_job_that_redis_forgot_goes_on_as_the_message_says(fleet, named):
    options, environment = named
    job = fleet.producer("submit", "-", *SUBMIT, stdin=TWO).stdout.strip()
    fleet.ledger.jobs.forget(job)
    redis_alone = [word for word in options if word not in ("--store", fleet.store_url)]
    for command in ("status", "cancel"):
        told = run_producer(command, job, *redis_alone, environment=environment)
        assert told.returncode == 2
        assert advised(told.stderr)[-1][:2] == ["resume", job]
    assert follow(told.stderr, fleet.environment).returncode == 0
    assert fleet.ledger.jobs.progress(job).state is JobState.OPEN


def test_a_stopped_job_goes_on_at_higher_precision_as_the_message_says(fleet, named):
    options, environment = named
    submitted = fleet.producer("submit", "-", *SUBMIT, "--on-instability=fail", stdin=TWO)
    job = submitted.stdout.strip()
    manifest = read_manifest(open_store(fleet.store_url), job)
    fleet.ledger.results.complete(unstable(manifest.batch(1), 1, stops_job=True))
    told = run_producer("watch", job, *options, environment=environment)
    assert told.returncode == 2
    done = follow(told.stderr, environment)
    assert done.returncode == 0, done.stderr
    assert fleet.ledger.jobs.progress(job).state is JobState.OPEN
    assert not fleet.ledger.jobs.stops_at_instability(job)


def test_failed_batches_are_retried_as_the_message_says(fleet, named):
    options, environment = named
    job = fleet.producer("submit", "-", *SUBMIT, stdin=TWO).stdout.strip()
    manifest = read_manifest(open_store(fleet.store_url), job)
    fleet.ledger.results.complete(failed(manifest.batch(0)))
    fleet.ledger.results.complete(ok(manifest.batch(1)))
    store_shard(open_store(fleet.store_url), manifest, 1)
    told = run_producer("watch", job, *options, environment=environment)
    assert told.returncode == 1
    assert advised(told.stderr)[-1][:2] == ["retry", job]
    done = follow(told.stderr, environment)
    assert "1 of 2 batches" in done.stderr


def test_a_shard_that_is_damaged_or_missing_is_computed_again_as_the_message_says(fleet, named):
    options, environment = named
    store = open_store(fleet.store_url)
    job = fleet.producer("submit", "-", *SUBMIT, stdin=TWO).stdout.strip()
    manifest = read_manifest(store, job)
    fetch = ["fetch", job, "-o", "e.h5", *(options[:2])]
    early = run_producer(*fetch, environment=environment)
    wait, follow_it = advised(early.stderr)[-2:]
    assert (wait[:2], follow_it[:2]) == (["watch", job], ["fetch", job])
    assert "--follow" in follow_it
    for index in range(2):
        fleet.ledger.results.complete(ok(manifest.batch(index)))
        store_shard(store, manifest, index)
    shards = sorted(store.keys(f"{job}/output/"))
    store.put(shards[0], b"damaged")
    told = run_producer(*fetch, environment=environment)
    assert advised(told.stderr)[-1][:3] == ["retry", job, "--damaged"]
    done = follow(told.stderr, environment | {"VIRNUCPRO_BROKER_URL": fleet.broker_url})
    assert done.returncode == 0, done.stderr
    assert "1 of 2 batches" in done.stderr
    assert list(store.keys(f"{job}/output/")) == shards[1:]


# --- a job that waits ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "another key of ours"], ids=["no key", "another key"])
def test_refused_messages_are_told_and_the_job_goes_on_once_the_keys_are_the_same(
    fleet, tiny, tmp_path, key
):
    (tmp_path / "p.fasta").write_bytes(TWO)
    with_key = {**fleet.environment, "VIRNUCPRO_MESSAGE_KEY": "the key of the workers"}
    ours = {**fleet.environment, **({"VIRNUCPRO_MESSAGE_KEY": key} if key else {})}
    workers = Fleet(fleet.broker_url, fleet.store_url, with_key).workers(tiny, tmp_path)
    with workers:
        submit = ("submit", tmp_path / "p.fasta", "--model", tiny)
        submitted = run_producer(*submit, environment=ours)
        job = submitted.stdout.strip()
        told = run_producer("status", job, environment=ours).stdout
        with subprocess.Popen(
            [sys.executable, "-m", "producer.cli", "watch", job], env=ours, stderr=subprocess.PIPE
        ) as watch:
            while b"waits" not in (line := watch.stderr.readline()):
                assert line
            watch.terminate()
        for text in (submitted.stderr, told, line.decode()):
            assert "its messages are refused" in text
            assert f"producer resume {job}" in text
        assert fleet.ledger.events.count(job) == 0
        assert follow(told, with_key).returncode == 0
        assert run_producer("watch", job, environment=with_key).returncode == 0


def test_a_job_that_no_worker_serves_says_so_with_a_worker_to_start(fleet, named):
    options, environment = named
    submitted = run_producer("submit", "-", *SUBMIT, *options, environment=environment, stdin=TWO)
    (command,) = re.findall(r"Start one: (worker start .*)$", submitted.stderr, re.MULTILINE)
    with run_worker(command, environment, fleet):
        done = follow("\n".join(submitted.stderr.splitlines()[:-1]), environment)
        assert done.returncode == 0, done.stderr


@contextmanager
def run_worker(command: str, environment: Mapping[str, str], fleet: Fleet) -> Iterator[None]:
    """Run a worker's command until the block ends."""
    _, *words = shlex.split(command)
    with tempfile.TemporaryFile() as output:
        worker = start_command("workers.cli", *words, environment=environment, output=output)
        try:
            wait_until(fleet.ledger.workers.all, 60)
            yield
        finally:
            stop(worker, 40)


# --- on one machine -----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--store=kept",)], ids=["own store", "store"])
def test_an_interrupted_local_job_goes_on_as_the_message_says(tiny, tmp_path, more):
    """From standard input, and new: the same command would begin another job."""
    options = ["--local", "--new", f"--model={tiny}", "--output=my e.h5", *more]
    with subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "submit", "-", *options],
        **{"cwd": tmp_path, "env": clean_environment()},
        **{"stdin": subprocess.PIPE, "stderr": subprocess.PIPE},
    ) as process:
        process.stdin.write(TWO)
        process.stdin.close()
        while b"for queue" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)  # it waits by now
        process.send_signal(signal.SIGINT)
        message = process.stderr.read().decode()
    assert process.returncode == 130, message
    assert not processes_of(tmp_path)
    done = follow(message, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(load(tmp_path / "my e.h5")["rows"]) == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"my e.h5", *([] if not more else ["kept"])}


def test_failed_batches_of_a_local_job_are_retried_as_the_message_says(tiny, tmp_path):
    (tmp_path / "p.fasta").write_bytes(TWO)
    submit = ("submit", "p.fasta", "--local", "--model", tiny, "-o", "e.h5")
    told = run_producer(*submit, "--layers", "5", cwd=tmp_path)
    assert told.returncode == 1
    again = follow(told.stderr, cwd=tmp_path)
    assert again.returncode == 1
    assert "Layer 5: this model has layers 0 to 2" in again.stderr
    assert advised(again.stderr) == advised(told.stderr)


def test_a_local_job_whose_worker_ends_goes_on_as_the_message_says(tiny, tmp_path):
    (tmp_path / "p.fasta").write_bytes(TWO)
    (tmp_path / "model.pt").write_text("no weights")
    submit = ("submit", "p.fasta", "--local", "--model", "./model.pt", "-o", "e.h5")
    told = run_producer(*submit, cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr.endswith("Mend that, then run the same command again.\n")
    (tmp_path / "model.pt").write_bytes(tiny.read_bytes())
    done = run_producer(*submit, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(load(tmp_path / "e.h5")["rows"]) == 2


def test_a_local_job_is_not_resumed_with_other_weights(tiny, tmp_path):
    (tmp_path / "p.fasta").write_bytes(TWO)
    (tmp_path / "model.pt").write_text("no weights")
    submit = ("submit", "p.fasta", "--local", "--model", "./model.pt", "-o", "e.h5", "--store=s")
    told = run_producer(*submit, cwd=tmp_path)
    assert told.returncode == 2
    (tmp_path / "model.pt").write_bytes(tiny.read_bytes())
    again = follow(told.stderr, cwd=tmp_path)
    assert again.returncode == 2
    assert "has changed since job p-" in again.stderr
    done = run_producer(*submit, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "is another job, of the new weights" in done.stderr


def test_what_a_local_run_does_not_have_is_said(tmp_path):
    without = run_producer("resume", "in-1", "--local", cwd=tmp_path)
    assert (without.returncode, "with -o" in without.stderr) == (2, True)
    unknown = run_producer("resume", "in-1", "--local", "-o", "e.h5", cwd=tmp_path)
    assert (unknown.returncode, "has no job 'in-1'" in unknown.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
