"""The chart's own copies of this project's files, and a chart that has lost them."""

import shutil
import subprocess

import pytest

from tests.chart.cases import EVERYTHING
from tests.chart.copies import SOURCES
from tests.support.chart import CHART, HELMS, ROOT, find, pod_of, refused, render
from tests.support.containers import variables


@pytest.mark.parametrize("how", ["missing", "empty"])
@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("name", SOURCES)
def test_a_chart_without_one_of_its_files_is_refused(name, helm, how, tmp_path):
    chart = shutil.copytree(CHART, tmp_path / CHART.name)
    path = chart / "files" / name
    path.unlink()
    if how == "empty":
        path.touch()
    assert f"The chart has no files/{name}" in refused(EVERYTHING, helm=helm, chart=chart)


@pytest.mark.parametrize("lost", ["make-users.sh", "users.acl"])
def test_redis_does_not_start_with_users_that_were_lost(lost, tmp_path):
    """As the ACL file would be empty, with which Redis lets everybody in."""
    objects = render()
    container = pod_of(objects, "StatefulSet", "redis").container("redis")
    users = tmp_path / "users"
    users.mkdir()
    for name, text in find(objects, "ConfigMap", "redis")["data"].items():
        (users / name).write_text("" if name == lost else text)
    [script] = container["args"]
    script = script.replace("/tmp/", f"{tmp_path}/").replace("/etc/virnucpro/users", str(users))
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\ntouch started\n")
    server.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables(container, objects)}

    def start() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*container["command"], script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    done = start()
    assert done.returncode == 2
    assert "make-users" in done.stderr
    assert not (tmp_path / "started").exists()
    shutil.copy(ROOT / "deploy" / "redis" / lost, users)
    assert start().returncode == 0
    assert (tmp_path / "started").exists()
