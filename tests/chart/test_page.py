"""The first section of ``docs/kubernetes.md``: its values, its commands, and its names."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, ROOT, Object, find, render, tool

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
SECTION = PAGE.partition("\n## From zero")[2].partition("\n## ")[0]
[VALUES] = re.findall(r"^```yaml\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def commands(*beginning: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[: len(beginning)] == list(beginning)]


@pytest.fixture
def objects() -> list[Object]:
    """The objects of the page's ``helm install``, rendered instead of installed."""
    [[_, _, release, chart, *options]] = commands("helm", "install")
    assert ROOT / chart == CHART
    assert options[:-2] == ["--namespace", "virnucpro", "--values", "my-values.yaml"]
    return render(yaml.safe_load(VALUES), release=release, namespace="virnucpro")


def test_what_the_commands_name_is_made_of_the_values(objects):
    named = re.findall(r"\b(cronjob|deployment|service)/([\w-]+)", SECTION)
    kinds = {"cronjob": "CronJob", "deployment": "Deployment", "service": "Service"}
    assert len(named) == 4
    for kind, name in named:
        assert find(objects, kinds[kind], name)["metadata"]["name"] == name


def test_helm_waits_for_as_long_as_the_store_may_take_to_be_made(objects):
    job = find(objects, "Job", "store-init")["spec"]
    for command in (*commands("helm", "install"), *commands("helm", "rollback")):
        option, minutes = command[-2:]
        assert option == "--timeout"
        assert int(minutes.removesuffix("m")) * 60 >= job["activeDeadlineSeconds"]


def test_the_pool_scales_as_the_values_say(objects):
    scaled = find(objects, "ScaledObject")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (0, 16)


def test_pods_have_the_images_that_are_pushed(objects):
    pushed = {words[2] for words in commands("docker", "push")}
    assert pushed == {words[words.index("-t") + 1] for words in commands("docker", "build")}
    used = set(re.findall(r'"image": "([^"]+)"', json.dumps(objects)))
    assert {image for image in used if "valkey" not in image} == pushed


def test_kubectl_makes_what_the_pods_refer_to(objects, tmp_path):
    made = [
        dry_run(command, tmp_path)
        for command in COMMANDS
        if command[0] == "kubectl" and {"namespace", "secret"} & set(command)
        if "create" in command
    ]
    assert [item["kind"] for item in made] == ["Namespace", "Secret"]
    secret = made[1]
    references = re.findall(r'"secretKeyRef": (\{[^}]*\})', json.dumps(objects))
    asked = [json.loads(reference) for reference in references]
    keys = {
        item["key"]
        for item in asked
        if item["name"] == secret["metadata"]["name"] and not item.get("optional")
    }
    assert keys == set(secret["data"])


def dry_run(command: list[str], folder: Path) -> Object:
    """Return the object that kubectl would make; files that it reads are made."""
    for word in command:
        if word.startswith("--from-file="):
            (folder / word.removeprefix("--from-file=")).write_text("x")
    words = [str(tool("kubectl")), *command[1:], "--dry-run=client", "--output=json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
