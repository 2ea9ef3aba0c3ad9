"""What Helm does with the chart from the installation on: hooks, what is kept, what is made anew.

Real Helm works on a stand-in of an API server, which keeps objects and runs nothing.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from tests.support.chart import CHART, HELMS, NAMESPACE, RELEASE, Object, tool
from tests.support.kube_api import Cluster, running_cluster

WEIGHTS = f"{RELEASE}-weights"
CLAIM = ("PersistentVolumeClaim", WEIGHTS)
ACCOUNT = ("ServiceAccount", RELEASE)
JOB = ("Job", WEIGHTS)

#: A pool that reads its weights from a bucket by the role of the release's account.
POOL = {"name": "a", "model": "s3://weights/one"}
VALUES = {
    "pools": [POOL],
    "weights": {"source": "volume"},
    "store": {"url": "s3://fleet/jobs"},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/f"}},
}


class Release:
    """A release, and the cluster that it is in."""

    def __init__(self, helm: Path, cluster: Cluster, folder: Path) -> None:
        self.helm, self.cluster, self.folder = helm, cluster, folder

    def helm_run(self, *words: object) -> CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.cluster.kubeconfig(self.folder)),
        }
        command = [str(word) for word in (self.helm, *words, "--namespace", NAMESPACE)]
        self.cluster.changes.clear()
        return run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def apply(self, *words: str, values: Object = VALUES) -> CompletedProcess[str]:
        """Install or upgrade the release."""
        file = self.folder / "values.json"
        file.write_text(json.dumps(values))
        return self.helm_run(*words, RELEASE, CHART, "--values", file, "--timeout", "60s")

    def install(self) -> None:
        done = self.apply("install")
        assert done.returncode == 0, done.stderr

    def changes(self, *of: tuple[str, str]) -> list[tuple[str, str, str]]:
        """Return what the latest command made and deleted of some objects, in that order."""
        found = [c for c in self.cluster.changes if c[0] != "update"]
        return [change for change in found if change[1:] in of]


@pytest.fixture(params=HELMS)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Release]:
    helm = tool(request.param)
    with running_cluster() as cluster:
        yield Release(helm, cluster, tmp_path)


def test_a_role_s_account_is_there_for_the_hook_and_then_for_the_release(release):
    release.install()
    assert release.changes(ACCOUNT, JOB) == [
        ("create", *ACCOUNT),
        ("create", *JOB),
        ("delete", *JOB),
        ("delete", *ACCOUNT),
        ("create", *ACCOUNT),
    ]
    account = release.cluster.get(*ACCOUNT)
    assert "helm.sh/hook" not in account["metadata"]["annotations"]


def test_an_upgrade_fills_the_volume_again_and_leaves_the_account_alone(release):
    release.install()
    before = [release.cluster.get(*each)["metadata"]["uid"] for each in (CLAIM, ACCOUNT)]
    more = {**VALUES, "pools": [POOL, {"name": "b", "model": "s3://weights/two"}]}
    done = release.apply("upgrade", values=more)
    assert done.returncode == 0, done.stderr
    assert release.changes(ACCOUNT, JOB, CLAIM) == [("create", *JOB), ("delete", *JOB)]
    after = [release.cluster.get(*each)["metadata"]["uid"] for each in (CLAIM, ACCOUNT)]
    assert after == before


def test_the_volume_outlives_the_release_and_serves_the_next_one(release):
    release.install()
    before = release.cluster.get(*CLAIM)["metadata"]["uid"]
    assert release.helm_run("uninstall", RELEASE).returncode == 0
    release.install()
    assert release.changes(CLAIM) == []
    assert release.cluster.get(*CLAIM)["metadata"]["uid"] == before


def test_a_release_whose_hook_failed_can_be_installed_afterwards(release):
    release.cluster.failing.add(WEIGHTS)
    assert release.apply("install").returncode != 0
    assert release.cluster.get("Deployment", f"{RELEASE}-a") is None
    assert release.cluster.get(*JOB) is not None  # its log says why
    release.cluster.failing.clear()
    done = release.apply("upgrade", "--install")
    assert done.returncode == 0, done.stderr
    assert release.cluster.get(*ACCOUNT) is not None
    assert release.cluster.get("Deployment", f"{RELEASE}-a") is not None
    assert release.helm_run("uninstall", RELEASE).returncode == 0
    assert release.cluster.get(*ACCOUNT) is None  # it had become the release's


def test_an_upgrade_and_the_next_installation_keep_the_passwords(release):
    release.install()
    before = release.cluster.get("Secret", f"{RELEASE}-secrets")["data"]
    assert len(before["worker-password"]) > 20
    assert release.apply("upgrade").returncode == 0
    assert release.cluster.get("Secret", f"{RELEASE}-secrets")["data"] == before
    assert release.helm_run("uninstall", RELEASE).returncode == 0
    release.install()
    assert release.cluster.get("Secret", f"{RELEASE}-secrets")["data"] == before


def test_an_upgrade_adds_a_password_that_is_missing(release):
    release.install()
    data = release.cluster.get("Secret", f"{RELEASE}-secrets")["data"]
    del data["flower-login"]
    before = dict(data)
    assert release.apply("upgrade").returncode == 0
    after = dict(release.cluster.get("Secret", f"{RELEASE}-secrets")["data"])
    assert after.pop("flower-login")
    assert after == before
