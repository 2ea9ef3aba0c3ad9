"""Threads follow the CPUs that the process may use, whichever version of groups limits them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cpus import group_cpus, thread_variables, usable_cpus
from tests.support.processes import clean_environment


def groups(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A tree of groups, and the file that names those of a process."""
    for name, content in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "own").write_text(own)
    return folder / "cgroup", folder / "own"


@pytest.mark.parametrize(
    ("own", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
        ("0::/pods/a\n", {"pods/a/cpu.max": "max 100000", "pods/cpu.max": "50000 100000"}, 0.5),
        ("0::/pods/a\n", {"pods/a/cpu.max": "150000 100000", "pods/cpu.max": "400000 100000"}, 1.5),
        # In a container that sees only its own group, under the path of the host.
        ("0::/kubepods/pod1/c\n", {"cpu.max": "300000 100000"}, 3),
        (
            "12:memory:/d/1\n4:cpu,cpuacct:/d/1\n0::/d/1\n",
            {
                "cpu,cpuacct/d/1/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/d/1/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            math.inf,
        ),
        ("0::/\n", {"cpu.max": "garbage"}, math.inf),
        ("0::/\n", {"cpu.max": "1 0"}, math.inf),
        ("garbage\n", {"cpu.max": "100000 100000"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_least_limit_of_a_group_and_of_those_around_it_is_found(tmp_path, own, files, cpus):
    assert group_cpus(*groups(tmp_path, own, files)) == cpus


def test_a_machine_without_groups_has_no_limit(tmp_path):
    assert group_cpus(tmp_path / "none", tmp_path / "none") == math.inf


def test_affinity_counts_too(tmp_path):
    limited = groups(tmp_path, "0::/\n", {"cpu.max": "50000 100000"})
    assert usable_cpus(*limited) == 0.5
    unlimited = groups(tmp_path, "0::/\n", {"cpu.max": "max 100000"})
    code = (
        f"from pathlib import Path; from common.cpus import usable_cpus as u\n"
        f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        f"print(u(Path({str(unlimited[0])!r}), Path({str(unlimited[1])!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_processes_share_the_cpus():
    variables = thread_variables({}, processes=4, cpus=16, host_cpus=64)
    assert variables == {
        "OMP_NUM_THREADS": "4",
        "MKL_NUM_THREADS": "4",
        "OPENBLAS_NUM_THREADS": "4",
        "RAYON_NUM_THREADS": "4",
    }


def test_what_the_user_set_stays_and_the_libraries_that_follow_it_are_left_to_it():
    user = {"OMP_NUM_THREADS": "7", "RAYON_NUM_THREADS": "1"}
    assert thread_variables(user, processes=1, cpus=2, host_cpus=64) == {}
    assert thread_variables({"MKL_NUM_THREADS": "7"}, 1, 2, 64) == {
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "RAYON_NUM_THREADS": "2",
    }


def test_a_process_that_has_the_machine_to_itself_is_left_alone():
    assert thread_variables({}, processes=1, cpus=8, host_cpus=8) == {}


@given(st.integers(1, 64), st.floats(0.01, 512), st.integers(1, 512))
def test_there_is_at_least_one_thread_and_never_more_than_cpus(processes, cpus, host_cpus):
    for number in thread_variables({}, processes, cpus, host_cpus).values():
        assert 1 <= int(number) < max(2, host_cpus)
        assert int(number) == 1 or processes * int(number) <= cpus


def test_pytorch_takes_the_number_that_is_set():
    environment = clean_environment(**thread_variables({}, 1, 1.0, 64))
    for name in {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        environment[name] = "1"
    code = "import torch; print(torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
