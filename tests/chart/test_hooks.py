"""What Helm runs: the Job that makes the store after an installation, and ``helm test``."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.chart import ROOT, find, find_all, pod_of, render, unavailable
from tests.support.processes import run_producer, running_fleet, wait_until

PROTEINS = ROOT / "examples" / "proteins.fasta"


def test_the_store_is_made_once_the_rest_of_the_release_is_there():
    """After an upgrade too: a first installation may have failed, and another store be named."""
    job = find(render(), "Job", "store-init")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,post-upgrade"
    assert pod_of([job], "Job").container("init")["args"] == ["init"]


def test_a_redis_that_still_starts_is_waited_for():
    spec = find(render(), "Job", "store-init")["spec"]
    waits = sum(min(10 * 2**attempt, 360) for attempt in range(spec["backoffLimit"]))
    assert waits >= 600
    assert spec["activeDeadlineSeconds"] > waits
    assert "podFailurePolicy" not in spec  # no code of an exit ends it


def test_the_command_that_makes_the_store_may_be_repeated(tmp_path, sockets):
    args = pod_of(render(), "Job", "store-init").container("init")["args"]
    with running_fleet(sockets, f"file://{tmp_path}/store") as fleet:
        assert [fleet.producer(*args).returncode for _ in range(2)] == [0, 0]
    assert run_producer(*args, environment=fleet.environment).returncode != 0  # Redis is away


def test_no_store_is_made_if_it_is_off():
    assert not find_all(render({"store": {"init": False}}), "Job")


def test_the_claim_of_a_folder_outlives_the_release():
    claim = find(render(), "PersistentVolumeClaim", "store")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(
    "store", [{"url": "s3://bucket/fleet"}, {"volume": {"existingClaim": "mine"}}]
)
def test_no_claim_is_made_for_a_bucket_or_beside_one_of_the_user_s(store):
    assert not find_all(render({"store": store}), "PersistentVolumeClaim")


@pytest.fixture
def release(tiny):
    """A release whose first pool has a small model, on the CPU."""
    pools = [{"name": "tiny", "model": str(tiny), "gpu": {"count": 0}}]
    return render({"pools": pools, "test": {"timeoutSeconds": 900}})


def started_test(objects, fleet, folder: Path) -> subprocess.Popen[str]:
    """Start the container of ``helm test``, with ``producer`` of this tree and other folders."""
    if shutil.which("tini") is None:
        unavailable("needs tini (apt install tini)")
    container = pod_of(objects, "Pod", "test").container("embed")
    producer = folder / "producer"
    producer.write_text(f'#!/bin/sh\nexec {sys.executable} -m producer.cli "$@"\n')
    producer.chmod(0o755)
    (folder / "proteins.fasta").write_text(
        find(objects, "ConfigMap", "test")["data"]["proteins.fasta"]
    )
    words = [
        word.replace("/input/", f"{folder}/").replace(
            "/tmp/embeddings.h5", f"{folder}/embeddings.h5"
        )
        for word in (*container["command"], *container["args"])
    ]
    environment = {
        **fleet.environment,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_helm_test_embeds_the_proteins_and_deletes_its_job(release, tiny, tmp_path, sockets):
    with (
        running_fleet(sockets, f"file://{tmp_path}/store") as fleet,
        fleet.workers(tiny, tmp_path, "--precision", "fp32"),
    ):
        process = started_test(release, fleet, tmp_path)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert (tmp_path / "embeddings.h5").stat().st_size > 1000
        assert fleet.ledger.jobs.names() == []


def test_a_helm_test_that_is_stopped_leaves_no_job_for_which_a_worker_is_kept(
    release, tmp_path, sockets
):
    with running_fleet(sockets, f"file://{tmp_path}/store") as fleet:
        process = started_test(release, fleet, tmp_path)
        wait_until(lambda: watches(process), 60)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)  # as long as a kubelet waits
        assert process.returncode not in (0, -signal.SIGKILL), output
        assert fleet.ledger.jobs.names() == []


def test_helm_test_can_be_submitted_to_a_pool_of_dna(tmp_path, sockets):
    objects = render({"pools": [{"name": "dna", "model": "dnabert_s", "gpu": {"count": 0}}]})
    with running_fleet(sockets, f"file://{tmp_path}/store") as fleet:
        process = started_test(objects, fleet, tmp_path)
        wait_until(lambda: watches(process) or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()[0]
        process.terminate()
        process.communicate(timeout=30)


def watches(process: "subprocess.Popen[str]") -> bool:
    with suppress(psutil.Error):  # one of them has just ended
        below = psutil.Process(process.pid).children(recursive=True)
        return any("watch" in child.cmdline() for child in below)
    return False


def test_helm_test_ends_in_time(release):
    pod = find(release, "Pod", "test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["activeDeadlineSeconds"] == 900
    assert pod["spec"]["restartPolicy"] == "Never"


def test_helm_test_embeds_what_is_in_examples(release):
    text = find(release, "ConfigMap", "test")["data"]["proteins.fasta"]
    assert text.split() == PROTEINS.read_text().split()
