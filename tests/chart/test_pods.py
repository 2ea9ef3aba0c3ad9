"""What every pod has: a strict security context, limits, probes, and no secret that can be read."""

import base64
import json
import re
from collections.abc import Iterator

import pytest

from tests.chart.cases import CASES, EVERYTHING, Case
from tests.support.chart import Object, Pod, env_of, find_all, pods, references, render
from tests.support.pod_security import violations

#: Variables whose values are secret.
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN$|_KEY|LOGIN")

#: Not secret: the name of a file that has a token, and the id of a key.
NOT_SECRET = ("AWS_WEB_IDENTITY_TOKEN_FILE",)

#: It sleeps.
WITHOUT_PROBES = ("prepull",)


@pytest.fixture(params=CASES, ids=str)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    case: Case = request.param
    return case.render()


def named(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield every container, with a name for messages."""
    for pod in pods(objects):
        for container in pod.all_containers():
            yield f"{pod.label}, {container['name']}", container


def test_pods_pass_pod_security_restricted(objects):
    found = {
        pod.label: violations(pod.spec, pod.metadata.get("annotations")) for pod in pods(objects)
    }
    assert len(found) > 4
    assert {label: texts for label, texts in found.items() if texts} == {}


def test_root_file_systems_are_read_only_and_tokens_are_not_mounted(objects):
    for label, container in named(objects):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, label
    for pod in pods(objects):
        assert pod.spec["automountServiceAccountToken"] is False, pod.label


def test_memory_is_asked_for_and_limited(objects):
    for label, container in named(objects):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), label
        assert "memory" in resources["limits"], label


def test_emptydirs_have_a_limit(objects):
    for pod in pods(objects):
        for volume in pod.spec.get("volumes", ()):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), (pod.label, volume)


def test_what_runs_for_long_has_probes_that_wait_for_an_answer(objects):
    for pod in pods(objects):
        if not pod.long_running or pod.component in WITHOUT_PROBES:
            continue
        for container in pod.containers():
            probes = {name: container[name] for name in ("livenessProbe", "readinessProbe")}
            probes |= {"startupProbe": container["startupProbe"]} if worker(pod) else {}
            for name, probe in probes.items():
                assert probe["timeoutSeconds"] >= 5, (pod.label, name)


def worker(pod: Pod) -> bool:
    return pod.component == "worker"


def test_secret_variables_come_from_secrets(objects):
    found = 0
    for label, container in named(objects):
        for name, value in env_of(container).items():
            if SECRET.search(name) and name not in NOT_SECRET:
                assert "secretKeyRef" in value, (label, name)
                found += 1
    assert found > 8


def test_an_address_takes_a_password_in_that_is_defined_before_it(objects):
    found = 0
    for label, container in named(objects):
        seen: list[str] = []
        for name, value in env_of(container).items():
            for reference in references(value) if isinstance(value, str) else ():
                assert reference in seen, (label, name, reference)
                found += 1
            seen.append(name)
    assert found > 3


def test_no_password_is_in_an_address(objects):
    """A URL's user may have a variable for a password."""
    for label, container in named(objects):
        texts = [*map(str, env_of(container).values()), *container.get("args", ())]
        for text in texts:
            for login in re.findall(r"://([^@/\s]*)@", text):
                assert login.partition(":")[2] == "$(REDIS_PASSWORD)", (label, text)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_values_of_a_secret_are_in_no_other_object(values):
    objects = render(values)
    [secret] = find_all(objects, "Secret")
    texts = [base64.b64decode(value).decode() for value in secret.get("data", {}).values()]
    texts += secret.get("stringData", {}).values()
    assert len(texts) > 5
    assert min(map(len, texts)) >= 24
    others = json.dumps([item for item in objects if item is not secret])
    assert [text for text in texts if text.rpartition(":")[2] in others] == []
