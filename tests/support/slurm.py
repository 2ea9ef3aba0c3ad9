"""A real Slurm of one node on loopback: controller, node and authentication of its own."""

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.local.processes import start_dependent, stop
from tests.conftest import ROOT
from tests.support.processes import wait_until
from tests.support.redis_servers import HOST, free_port

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")

SCRIPT = ROOT / "deploy" / "slurm" / "worker.sbatch"

#: Time of a job's state to change, with what the controller does every few seconds.
CHANGE_SECONDS = 60

SETTINGS = """\
ClusterName=test
SlurmctldHost={host}({address})
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr={address} CPUs=64 RealMemory=1000000 Gres=gpu:4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm, and the environment with which its commands find it."""

    folder: Path
    environment: Mapping[str, str] = field(repr=False)

    def run(self, *words: object) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environment,
            cwd=self.folder / "submitted",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, settings: Path, *words: object, options: tuple[str, ...] = ()) -> str:
        """Submit the script with a file of settings; return the job's number."""
        export = f"--export=VIRNUCPRO_SETTINGS={settings}"
        return self.run("sbatch", "--parsable", export, *options, SCRIPT, *words).strip()

    def fields(self, job: str) -> dict[str, str]:
        """Return what Slurm shows of a job, or of the only task of an array."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run("scontrol", "show", "job", job)))

    def state(self, job: str) -> str:
        return self.fields(job)["JobState"]

    def wait_for(self, job: str, *states: str) -> dict[str, str]:
        wait_until(lambda: self.state(job) in states, CHANGE_SECONDS)
        return self.fields(job)

    def logs(self) -> str:
        """Return what all jobs have printed."""
        return "\n".join(path.read_text() for path in (self.folder / "submitted").glob("*.log"))


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=path_with_sbin()) is None] + (
        [] if os.geteuid() == 0 else ["root"]
    )


def path_with_sbin() -> str:
    return f"{os.environ['PATH']}:/usr/sbin"


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Run Slurm until the block ends; all of its jobs end with it.

    Args:
        folder: with a short name, as it has a socket.
    """
    for name in ("state", "spool", "submitted"):
        (folder / name).mkdir()
    host = os.uname().nodename.partition(".")[0]
    text = SETTINGS.format(
        **{"host": host, "address": HOST, "folder": folder},
        **{"controller": free_port(), "node": free_port()},
    )
    (folder / "slurm.conf").write_text(text)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-3]\n")
    for number in range(4):  # what stands for the devices
        (folder / f"gpu{number}").symlink_to("/dev/null")
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("VIRNUCPRO_")},
        "PATH": path_with_sbin(),
        "SLURM_CONF": str(folder / "slurm.conf"),
    }
    munge = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munge += [f"--socket={folder}/munge.sock", f"--pid-file={folder}/munge.pid"]
    munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
    with ExitStack() as stack:
        for command in (munge, ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
            output = stack.enter_context((folder / f"{command[0]}.out").open("wb"))
            process = start_dependent(command, env=environment, output=output)
            stack.callback(stop, process, 20)
        slurm = Slurm(folder, environment)
        wait_until(lambda: "idle" in sinfo(slurm), CHANGE_SECONDS)
        try:
            yield slurm
        finally:
            slurm.run("scancel", "--user=root")
            wait_until(lambda: not slurm.run("squeue", "--noheader"), CHANGE_SECONDS)


def sinfo(slurm: Slurm) -> str:
    """Return the state of the node; nothing before the controller answers."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%t"],
        env=slurm.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout
