"""What the pages say of a cluster outside of ``test_page.py``'s section: networks, roles, and
what an operator does to Secrets and to Redis.
"""

import json
import re
import shlex
import subprocess

import pytest
import yaml

from tests.support.chart import RELEASE, ROOT, Object, find, find_all, name_of, pods, render, tool
from tests.support.network_policies import matches

DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
KUBERNETES = (ROOT / "docs" / "kubernetes.md").read_text()
OPERATE = (ROOT / "docs" / "operate.md").read_text()


def section(page: str, heading: str) -> str:
    found = page.partition(f"\n{heading}\n")[2]
    level = heading.partition(" ")[0]
    return re.split(rf"^{level} ", found, flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


CILIUM, MESHES = map(
    yaml.safe_load, blocks(section(KUBERNETES, "## Networks of a cluster"), "yaml")
)
CHANGE = section(OPERATE, "## Change passwords and keys in Kubernetes")
REDIS = section(OPERATE, "### VirnucproRedisDown")

AHEAD = {"prePull": {"enabled": True}, "poolDefaults": {"nodeSelector": {"gpu": "yes"}}}


def test_cilium_s_policies_select_who_needs_them():
    objects = render({**CILIUM, **AHEAD})
    api_server, node = find_all(objects, "CiliumNetworkPolicy")
    assert name_of(api_server) == f"{RELEASE}-api-server"
    found = {
        name_of(policy): {
            pod.component
            for pod in pods(objects)
            if matches(policy["spec"]["endpointSelector"], pod.labels)
        }
        for policy in (api_server, node)
    }
    assert found == {
        f"{RELEASE}-api-server": {"keeper"},
        f"{RELEASE}-node": {"keeper", "worker", "flower", "submission", "hook"},
    }


def test_all_pods_are_left_out_of_a_mesh():
    found = list(pods(render({**MESHES, **AHEAD, "weights": {"source": "volume"}})))
    assert len(found) > 7
    for pod in found:
        assert MESHES["commonLabels"].items() <= pod.labels.items(), pod.label
        assert MESHES["podAnnotations"].items() <= pod.metadata["annotations"].items(), pod.label


def test_a_role_is_bound_to_each_account_that_uses_the_store():
    text = section(DEPLOY, "## Credentials of the store")
    objects = render({"store": {"url": "s3://bucket/fleet"}})
    used = {
        pod.spec["serviceAccountName"]
        for pod in pods(objects)
        if "VIRNUCPRO_STORE" in json.dumps(pod.spec)
    }
    [trust] = map(json.loads, blocks(text, "json"))
    trusted = trust["StringEquals"]["ISSUER:sub"]
    assert {name.rpartition(":")[2] for name in trusted} == used
    associated = re.findall(r"--service-account ([\w-]+)", "".join(blocks(text, "sh")))
    assert set(associated) == used


@pytest.mark.parametrize(
    "values",
    [
        {"autoscaling": {"deletionCost": False}},
        {"serviceAccount": {"create": False, "name": "ours"}},
    ],
    ids=["no marks", "an account of one's own"],
)
def test_one_account_is_enough_where_the_page_says_so(values):
    objects = render({"store": {"url": "s3://bucket/fleet"}, **values})
    accounts = {
        pod.spec["serviceAccountName"]
        for pod in pods(objects)
        if "VIRNUCPRO_STORE" in json.dumps(pod.spec)
    }
    assert len(accounts) == 1


def commands(text: str, *words: str) -> list[list[str]]:
    """Return the commands of kubectl that have some words."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    found = [shlex.split(line) for line in lines if line.startswith("kubectl ")]
    return [command for command in found if {*words} <= {*command}]


def test_the_restarts_that_the_page_names_reach_every_pod_that_reads_a_secret():
    objects = render()
    restarted = [
        {
            pod.component
            for pod in pods(objects)
            if pod.owner["kind"] == "Deployment" and _selected(command[-1], pod.owner)
        }
        for command in commands(CHANGE, "restart", "--selector")
    ]
    assert restarted == [{"keeper", "worker", "flower"}, {"keeper", "worker"}]
    [redis] = [words[-1] for words in commands(CHANGE, "restart") if "--selector" not in words]
    assert find(objects, "StatefulSet", redis.removeprefix("statefulset/"))


def _selected(selector: str, item: Object) -> bool:
    """Return whether a selector as kubectl takes it selects an object."""
    labels = item["metadata"]["labels"]
    parts = [re.split("=| in ", part) for part in re.split(r",(?![^(]*\))", selector)]
    return all(labels[key] in values.strip("()").split(",") for key, values in parts)


@pytest.mark.parametrize("text", [CHANGE, REDIS], ids=["a password", "Redis's volume"])
def test_a_patch_of_the_page_changes_what_is_there(text, tmp_path):
    [[*_, kind, name, option, patch]] = commands(text, "patch")
    objects = render()
    if kind == "secret":
        item = find(objects, "Secret", name)
    else:
        redis = find(objects, "StatefulSet", "redis")
        [template] = redis["spec"]["volumeClaimTemplates"]
        assert name == f"{name_of(template)}-{name_of(redis)}-0"
        item = {**template, "metadata": {"name": name}}
    before = tmp_path / "before.json"
    before.write_text(json.dumps(item))
    words = [tool("kubectl"), "patch", "--local", "--filename", before, option, patch]
    done = subprocess.run([*words, "--output=json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    after = json.loads(done.stdout)
    if kind == "secret":
        assert after["stringData"].keys() < item["data"].keys()
    else:
        assert after["spec"]["resources"] == {"requests": {"storage": "16Gi"}}


def test_the_pod_and_the_statefulset_of_redis_are_named_as_they_are():
    names = {name for command in commands(REDIS, "delete") for name in command}
    redis = name_of(find(render(), "StatefulSet", "redis"))
    assert {redis, f"{redis}-0"} <= names
