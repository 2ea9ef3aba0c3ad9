"""What an operator asks of a fleet: to see it, to script it, and to clean it up."""

import json
import os
import pty
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from common.job.layout import shard_key
from common.job.manifest import Manifest, read_manifest
from common.rungs import Rung
from common.store import open_store
from common.wire.dead_letters import DeadLetter, DeadLetters
from tests.support.jobs import failed, ok
from tests.support.processes import Fleet, wait_until
from tests.support.shards import store_shard

MODEL = "random:esm2_t6_8M_UR50D"


@pytest.fixture
def q(tmp_path) -> Path:
    (tmp_path / "q.fasta").write_text(">a\nMKTAYIAK\n")
    return tmp_path / "q.fasta"


def submitted(fleet: Fleet, fasta: Path, *options: str) -> str:
    done = fleet.producer("submit", fasta, "--model", MODEL, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def manifest_in(fleet: Fleet, job: str) -> Manifest:
    return read_manifest(open_store(fleet.store_url), job)


def finish(fleet: Fleet, job: str) -> str:
    """Finish a job of one batch without a worker."""
    manifest = manifest_in(fleet, job)
    store_shard(open_store(fleet.store_url), manifest, 0)
    fleet.ledger.results.complete(ok(manifest.batch(0)))
    return job


def document(done: "subprocess.CompletedProcess[str]", code: int = 0) -> Any:
    """Return the JSON object that a command printed."""
    assert done.returncode == code, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


# --- JSON -----------------------------------------------------------------------------------------


def test_every_command_that_reports_prints_one_json_object(fleet, q):
    job = submitted(fleet, q, "--owner", "ada@lab", "--priority", "low")
    DeadLetters(fleet.ledger.redis).add(DeadLetter(queue="q", worker="w", reason="r", message="m"))
    status = document(fleet.producer("status", job, "--json"))
    assert (status["job"], status["state"], status["owner"]) == (job, "queued", "ada@lab")
    assert (status["priority"], status["input"]) == ("low", str(q))
    assert "no worker serves" in status["waits"]
    assert [rung["queued"] for rung in status["rungs"]] == [1, 0, 0]
    finish(fleet, job)
    whole = document(fleet.producer("status", "--json"))
    assert [found["state"] for found in whole["jobs"]] == ["finished"]
    assert (whole["workers"], whole["dead_letters"]) == ([], 1)
    (listed,) = document(fleet.producer("jobs", "--json", "--sizes"))["jobs"]
    assert listed["objects"] == 3
    assert listed["bytes"] > 1000
    assert document(fleet.producer("verify", job, "--json"))["intact"] is True
    assert document(fleet.producer("quarantine", job, "--json")) == {"job": job, "sequences": []}
    (letter,) = document(fleet.producer("dead-letters", "--json"))["dead_letters"]
    assert letter["reason"] == "r"
    lines = fleet.producer("watch", job, "--json").stdout.splitlines()
    assert json.loads(lines[-1])["state"] == "finished"


def test_watch_prints_a_line_when_the_job_went_on_and_one_at_its_end(fleet, q):
    q.write_text(">a\nMK\n>b\nML\n")
    job = submitted(fleet, q, "--batch-tokens", "4")
    manifest = manifest_in(fleet, job)
    watching = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "watch", job, "--json"],
        env=fleet.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    with watching:
        lines = iter(watching.stdout)
        first = json.loads(next(lines))
        assert (first["batches"], first["batches_done"], first["workers"]) == (2, 0, 0)
        fleet.ledger.results.complete(ok(manifest.batch(0)))
        assert json.loads(next(lines))["batches_done"] == 1
        fleet.ledger.results.complete(ok(manifest.batch(1)))
        *_, last = map(json.loads, lines)
    assert (last["state"], last["batches_done"]) == ("finished", 2)
    assert watching.returncode == 0


def test_watch_prints_a_line_at_the_end_of_a_job_that_is_cancelled(fleet, q):
    job = submitted(fleet, q)
    watching = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "watch", job, "--json"],
        env=fleet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with watching:
        lines = iter(watching.stdout)
        assert json.loads(next(lines))["state"] == "queued"
        fleet.ledger.jobs.cancel(job)
        *_, last = map(json.loads, lines)
    assert (last["state"], watching.returncode) == ("cancelled", 2)
    late = fleet.producer("watch", job, "--json")
    assert [json.loads(line)["state"] for line in late.stdout.splitlines()] == ["cancelled"]
    assert (late.returncode, len(late.stderr.splitlines())) == (2, 1)


def test_an_error_in_json_mode_is_one_line_on_standard_error(fleet, q):
    for words in (["status", "no"], ["watch", "no"], ["verify", "no"], ["quarantine", "no"]):
        done = fleet.producer(*words, "--json")
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("module", ["producer.cli", "workers.cli"])
@pytest.mark.parametrize(
    "wrong", [["doctor", "--bogus"], ["no-such-command"], ["doctor", "--model"]]
)
def test_a_wrong_command_line_in_json_mode_is_one_line_on_standard_error(module, wrong, fleet):
    def stderr_of(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env=fleet.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr.splitlines()

    (line,) = stderr_of(*wrong, "--json")
    assert line.startswith("producer: " if module == "producer.cli" else "worker: ")


def test_control_characters_in_json_stay_json(fleet, tmp_path):
    odd = tmp_path / "odd\x1b\u202e.fasta"
    odd.write_text(">a\nMK\n")
    job = submitted(fleet, odd)
    done = fleet.producer("status", job, "--json")
    assert document(done)["input"] == str(odd)
    assert not {"\x1b", "\u202e"} & set(done.stdout)


# --- exit codes -----------------------------------------------------------------------------------


def test_each_exit_code_means_what_the_readme_says(fleet, q, tmp_path):
    job = submitted(fleet, q)
    output = tmp_path / "e.h5"
    assert fleet.producer("jobs").returncode == 0
    assert fleet.producer("jobs", "--no-such-option").returncode == 2
    assert fleet.producer("status", "no").returncode == 2
    for words in (["fetch", job, "-o", output], ["verify", job]):
        done = fleet.producer(*words)
        assert done.returncode == 3, done.stderr
        assert "producer watch" in done.stderr or "producer resume" in done.stderr
    fleet.ledger.results.complete(failed(manifest_in(fleet, job).batch(0)))
    assert fleet.producer("watch", job).returncode == 1
    fleet.producer("retry", job)
    finish(fleet, job)
    for words in (["watch", job], ["fetch", job, "-o", output], ["verify", job]):
        assert fleet.producer(*words).returncode == 0
    shard = Path(fleet.store_url.removeprefix("file://"), shard_key(job, 0, Rung.FP16))
    shard.write_bytes(shard.read_bytes()[:1000])
    assert fleet.producer("verify", job).returncode == 1


def test_a_job_whose_rows_wait_for_a_higher_rung_is_not_ready(fleet, q, tmp_path):
    q.write_text(">a\nMK\n>b\nMKT\n")
    job = submitted(fleet, q)
    store_shard(open_store(fleet.store_url), manifest_in(fleet, job), 0, rows=[0])
    for words in (["fetch", job, "-o", tmp_path / "e.h5"], ["verify", job]):
        done = fleet.producer(*words)
        assert done.returncode == 3, done.stderr


def test_what_a_finished_job_lacks_is_missing_and_not_late(fleet, q):
    job = finish(fleet, submitted(fleet, q))
    keeper = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "keeper", "--metrics", ""], env=fleet.environment
    )
    store = Path(fleet.store_url.removeprefix("file://"))
    try:
        wait_until((store / job / "closed.json").is_file, 30)
    finally:
        keeper.terminate()
        keeper.wait()
    (store / shard_key(job, 0, Rung.FP16)).unlink()
    assert fleet.producer("verify", job).returncode == 1


def test_ctrl_c_is_130(fleet, q):
    job = submitted(fleet, q)
    watching = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "watch", job, "--json"],
        env=fleet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with watching:
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
    assert watching.returncode == 130


# --- tables ---------------------------------------------------------------------------------------


def test_a_table_in_a_pipe_is_as_wide_as_columns_says(fleet, q):
    job = submitted(fleet, q)
    environment = {**fleet.environment, "COLUMNS": "50"}
    narrow = run_with(environment, "jobs")
    assert job in narrow
    assert max(map(len, narrow.splitlines())) <= 50
    del environment["COLUMNS"]
    (row,) = [line for line in run_with(environment, "jobs").splitlines() if job in line]
    assert "queued" in row
    assert MODEL in row


def run_with(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "producer.cli", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_status_says_who_submitted_what_and_when(fleet, q):
    environment = {**fleet.environment, "VIRNUCPRO_OWNER": "grace@lab"}
    done = fleet.__class__(fleet.broker_url, fleet.store_url, environment).producer(
        "submit", q, "--model", MODEL
    )
    job = done.stdout.strip()
    assert manifest_in(fleet, job).owner == "grace@lab"
    manifest = manifest_in(fleet, job)
    fleet.ledger.leases.claim(manifest.batch(0), owner="w/1", weights="w")
    shown = fleet.producer("status", job).stdout
    for text in ("grace@lab", "q.fasta", "normal", "elapsed", "time left", "submitted"):
        assert text in shown
    begun = document(fleet.producer("status", job, "--json"))
    assert begun["submitted"] < begun["started"]
    assert begun["elapsed_seconds"] > 0


def test_without_a_name_the_owner_is_user_and_host(fleet, q):
    owner = manifest_in(fleet, submitted(fleet, q)).owner
    assert owner.endswith(f"@{os.uname().nodename}")


def test_jobs_shows_when_the_keeper_deletes_them(fleet, q):
    finish(fleet, submitted(fleet, q))
    assert "deleted after" not in fleet.producer("jobs").stdout
    fleet.ledger.stores.note_keep(open_store(fleet.store_url).url, timedelta(days=2))
    assert "deleted after" in fleet.producer("jobs").stdout
    (job,) = document(fleet.producer("jobs", "--json"))["jobs"]
    assert job["ended"] < job["expires"]


# --- deleting -------------------------------------------------------------------------------------


def names_in(fleet: Fleet) -> list[str]:
    return list(open_store(fleet.store_url).folders())


def test_delete_asks_only_where_somebody_can_answer(fleet, q):
    job = finish(fleet, submitted(fleet, q))
    done = fleet.producer("delete", job)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert "3 objects" in done.stderr
    assert names_in(fleet) == fleet.ledger.jobs.names() == [job]
    done = fleet.producer("delete", job, "--yes")
    assert done.returncode == 0
    assert f"Deleted job {job}: 3 objects, " in done.stderr
    assert names_in(fleet) == fleet.ledger.jobs.names() == []


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 2, 1), ("", 2, 1)])
def test_delete_does_what_the_answer_says(fleet, q, answer, code, left):
    job = finish(fleet, submitted(fleet, q))
    own, other = pty.openpty()
    deleting = subprocess.Popen(
        [sys.executable, "-m", "producer.cli", "delete", job],
        env=fleet.environment,
        stdin=other,
        stderr=subprocess.PIPE,
    )
    os.close(other)
    os.write(own, f"{answer}\n".encode())
    _, shown = deleting.communicate(timeout=60)
    os.close(own)
    assert b"Delete 1 job for good? [y/N]" in shown
    assert deleting.returncode == code
    assert len(names_in(fleet)) == left


def test_a_running_job_is_not_deleted_and_nor_are_others_named_with_it(fleet, q, tmp_path):
    (tmp_path / "p.fasta").write_text(">b\nMK\n")
    done = finish(fleet, submitted(fleet, q))
    running = submitted(fleet, tmp_path / "p.fasta")
    refused = fleet.producer("delete", done, running, "--yes")
    assert refused.returncode == 2
    assert f"producer cancel {running}" in refused.stderr
    assert fleet.producer("delete", done, "no", "--yes").returncode == 2
    assert set(names_in(fleet)) == {done, running}
    fleet.producer("cancel", running)
    both = fleet.producer("delete", done, running, "--yes")
    assert both.returncode == 0, both.stderr
    assert names_in(fleet) == []


def test_a_job_that_redis_forgot_may_be_running_and_is_deleted_once_it_is_cancelled(fleet, q):
    job = submitted(fleet, q)
    fleet.ledger.redis.flushall()
    refused = fleet.producer("delete", job, "--yes")
    assert refused.returncode == 2
    assert "may be running on another Redis" in refused.stderr
    assert f"producer resume {job}, producer cancel {job}" in refused.stderr
    assert names_in(fleet) == [job]
    assert fleet.producer("resume", job).returncode == 0
    assert fleet.producer("cancel", job).returncode == 0
    assert fleet.producer("delete", job, "--yes").returncode == 0
    assert names_in(fleet) == []


# --- priorities and completion --------------------------------------------------------------------


def test_set_priority_says_what_it_moved(fleet, q):
    job = submitted(fleet, q)
    done = fleet.producer("set-priority", job, "high")
    assert done.returncode == 0, done.stderr
    assert f"Job {job} has high priority; 1 waiting message moved." in done.stderr
    assert fleet.ledger.jobs.progress(job).queue.startswith("high.")
    assert fleet.producer("set-priority", job, "urgent").returncode == 2
    again = fleet.producer("submit", q, "--model", MODEL)
    assert f"producer set-priority {job} --priority=normal" in again.stderr
    finish(fleet, job)
    assert "is finished" in fleet.producer("set-priority", job, "low").stderr


def test_the_shell_completes_names_of_jobs(fleet, q, tmp_path):
    job = submitted(fleet, q)
    environment = {**fleet.environment, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    run_with(environment, "--install-completion")
    script = tmp_path / ".local/share/bash-completion/completions/producer"
    (tmp_path / "producer").write_text(f'#!/bin/sh\nexec {sys.executable} -m producer.cli "$@"\n')
    (tmp_path / "producer").chmod(0o755)
    asked = f"""
        PATH={tmp_path}:$PATH; . {script}
        COMP_WORDS=(producer status ''); COMP_CWORD=2; _producer; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(producer set-); COMP_CWORD=1; _producer; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", asked], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [job, "set-priority"], done.stderr
