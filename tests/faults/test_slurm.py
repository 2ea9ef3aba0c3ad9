"""Workers that Slurm starts and ends: the script of ``deploy/slurm`` on a real Slurm."""

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.local.processes import start_dependent, stop
from tests.conftest import ROOT
from tests.faults.checks import assert_nothing_was_lost, progress_of, submit, wait_for_batches
from tests.support.processes import START_SECONDS, Fleet, is_ready, wait_until
from tests.support.slurm import CHANGE_SECONDS, SCRIPT, Slurm, missing_programs, running_slurm

ON_THE_CPU = ("--gpus", "none")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if missing := missing_programs():
        pytest.skip(f"needs {', '.join(missing)} (apt install slurmctld slurmd slurm-client munge)")
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        running_slurm(Path(folder)) as running,
    ):
        yield running


@pytest.fixture
def settings(fleet: Fleet, tmp_path: Path) -> Path:
    """The file of settings of workers, for their owner alone, and ``worker`` on their path."""
    programs = tmp_path / "bin"
    program(programs / "worker", f'exec {sys.executable} -P -m workers.cli "$@"')
    path = tmp_path / "fleet.env"
    path.touch(mode=0o600)
    path.write_text(
        f"VIRNUCPRO_BROKER_URL='{fleet.broker_url}'\nVIRNUCPRO_STORE={fleet.store_url}\n"
        f"PATH={programs}:$PATH\nPYTHONPATH={ROOT}\nOMP_NUM_THREADS=1\n"
        f"TMPDIR={tmp_path}\n"
    )
    return path


def program(path: Path, line: str) -> None:
    """Make a program of one line of shell."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def names(fleet: Fleet) -> set[str]:
    """Return the names that ready workers have in place of a host's."""
    workers = [worker for worker in fleet.ledger.workers.all() if is_ready(worker)]
    return {worker.name.partition("@")[2] for worker in workers}


def test_an_array_of_workers_does_a_job_and_one_that_is_cancelled_requeues_its_batches(
    slurm, fleet, settings, tiny, proteins, reference, tmp_path
):
    job = slurm.submit(settings, "--model", tiny, *ON_THE_CPU, options=("--array=3,5",))
    node = os.uname().nodename.partition(".")[0]
    expected = {f"{node}.{job}_3", f"{node}.{job}_5"}
    wait_until(lambda: names(fleet) == expected, START_SECONDS)
    name = submit(fleet, tiny, proteins)
    wait_for_batches(fleet, name)
    slurm.run("scancel", f"{job}_3")
    slurm.wait_for(f"{job}_3", "CANCELLED")
    wait_until(lambda: names(fleet) == {f"{node}.{job}_5"}, 20)
    assert_nothing_was_lost(fleet, name, reference)  # nobody looks after lost work: there is none
    slurm.run("scancel", "--signal=TERM", "--batch", f"{job}_5")
    ended = slurm.wait_for(f"{job}_5", "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), slurm.logs()
    assert list(tmp_path.glob("virnucpro-*")) == []


def test_without_slurm_a_shell_runs_the_script_and_its_worker_requeues_its_batches(
    fleet, settings, tiny, proteins, reference, tmp_path
):
    variables = {**fleet.environment, "VIRNUCPRO_SETTINGS": str(settings), "SLURM_JOB_ID": "7"}
    with (tmp_path / "log").open("wb") as output:
        words = ["bash", str(SCRIPT), "--model", str(tiny), *ON_THE_CPU]
        job = start_dependent(words, env=variables, output=output)
    try:
        wait_until(lambda: names(fleet), START_SECONDS)
        name = submit(fleet, tiny, proteins)
        wait_for_batches(fleet, name)
        job.terminate()
        assert job.wait(40) == 0, (tmp_path / "log").read_text()
    finally:
        stop(job, 40)
    assert progress_of(fleet, name).leased == 0
    assert not progress_of(fleet, name).finished
    with fleet.workers(tiny, tmp_path):
        assert_nothing_was_lost(fleet, name, reference)


@pytest.mark.slow
def test_a_worker_whose_time_is_over_requeues_its_batches_and_the_job_is_completed(
    slurm, fleet, settings, tiny, proteins, reference, tmp_path
):
    # Slurm has minutes, and looks every half: 2 min less 100 s.
    options = ("--time=2", "--signal=B:TERM@100")
    job = slurm.submit(settings, "--model", tiny, *ON_THE_CPU, options=options)
    wait_until(lambda: names(fleet), START_SECONDS)
    name = submit(fleet, tiny, proteins, tokens=1100)
    while slurm.state(job) == "RUNNING":
        if progress_of(fleet, name).finished:
            name = submit(fleet, tiny, proteins, "--new", tokens=1100)
    ended = slurm.fields(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), slurm.logs()
    assert progress_of(fleet, name).leased == 0
    assert not progress_of(fleet, name).finished
    with fleet.workers(tiny, tmp_path):
        assert_nothing_was_lost(fleet, name, reference)


def test_a_worker_that_another_job_displaces_ends_by_itself_and_its_job_is_requeued(
    slurm, settings, tmp_path
):
    slow = "trap 'sleep 2; echo worker ended; exit 0' TERM; while :; do sleep 0.1; done"
    program(tmp_path / "bin" / "worker", slow)
    job = slurm.submit(settings, "--model", "none", options=("--gpus-per-node=3",))
    slurm.wait_for(job, "RUNNING")
    wait_until(lambda: list(tmp_path.glob("virnucpro-*")), 20)
    words = ("--partition=urgent", "--gpus-per-node=4", "--output=urgent.log", "--wrap=true")
    slurm.run("sbatch", *words)
    wait_until(lambda: slurm.fields(job)["Restarts"] == "1", CHANGE_SECONDS)
    assert slurm.wait_for(job, "PENDING")["Reason"] == "BeginTime"
    assert "worker ended" in slurm.logs()
    assert list(tmp_path.glob("virnucpro-*")) == []
    slurm.run("scancel", job)


def test_slurm_keeps_no_secret_and_nothing_of_the_shell_that_submitted(slurm, settings, tmp_path):
    shown, hidden = secrets.token_hex(16), secrets.token_hex(16)
    program(tmp_path / "bin" / "worker", 'echo "key is $VIRNUCPRO_MESSAGE_KEY"; sleep 1000')
    with settings.open("a") as file:
        file.write(f"VIRNUCPRO_MESSAGE_KEY={hidden}\n")
    with_more = Slurm(slurm.folder, {**slurm.environment, "VIRNUCPRO_MESSAGE_KEY": shown})
    job = with_more.submit(settings, "--model", "none")
    wait_until(lambda: f"key is {hidden}" in slurm.logs(), 30)
    record = slurm.run("scontrol", "show", "job", "--details", job)
    record += slurm.run("scontrol", "write", "batch_script", job, "-")
    kept = [path for folder in ("state", "spool") for path in (slurm.folder / folder).rglob("*")]
    files = [path.read_bytes() for path in kept if path.is_file()]
    assert any(b"worker.sbatch" in content or b"worker start" in content for content in files)
    for secret in (shown, hidden):
        assert secret not in record
        assert not any(secret.encode() in content for content in files)
    slurm.run("scancel", job)


@pytest.mark.parametrize(
    ("code", "state", "restarts", "reason"),
    [
        pytest.param(2, "FAILED", "0", "NonZeroExitCode", id="only a person can correct it"),
        pytest.param(1, "PENDING", "1", "BeginTime", id="never ready: once more"),
        pytest.param(70, "PENDING", "1", "job_requeued_in_held_state", id="GPU lost: held"),
    ],
)
def test_what_becomes_of_a_job_depends_on_the_exit_code_of_its_worker(
    slurm, settings, tmp_path, code, state, restarts, reason
):
    program(tmp_path / "bin" / "worker", f"exit {code}")
    job = slurm.submit(settings, "--model", "none")
    wait_until(lambda: slurm.fields(job)["Restarts"] == restarts, CHANGE_SECONDS)
    ended = slurm.wait_for(job, state)
    assert ended["Reason"] == reason, slurm.logs()
    if code != 70:
        return
    # As the log says; this Slurm has no other node, so that the job goes on waiting.
    [orders] = re.findall(r"^(scontrol update .*)$", slurm.logs(), re.MULTILINE)
    slurm.run("bash", "-euc", orders)
    node = os.uname().nodename.partition(".")[0]
    assert slurm.fields(job)["ExcNodeList"] == node
    assert slurm.fields(job)["Reason"] != reason


def test_a_worker_has_the_gpus_that_slurm_gives_it_and_asks_for_one(slurm, settings, tmp_path):
    program(tmp_path / "bin" / "worker", 'echo "has $CUDA_VISIBLE_DEVICES for $*"')
    job = slurm.submit(settings, "--model", "none")
    slurm.wait_for(job, "COMPLETED")
    wait_until(lambda: "has " in slurm.logs(), 10)
    assert "has 0 for start --gpus required --model none" in slurm.logs()
