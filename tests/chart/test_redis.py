"""The manifest of the chart's Redis; ``test_redis_runs.py`` starts it."""

import re
import shutil
from pathlib import Path
from subprocess import run

import pytest

from common.wire.address import RedisAddress
from tests.support.chart import CHART, RELEASE, env_of, find, find_all, pod_of, render
from tests.support.redis_servers import embedded_program

TLS = {"tls": {"enabled": True, "existingSecret": "redis-tls"}}
ON_OPENSHIFT = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}


def redis(values=None, **more):
    pod = pod_of(render({"redis": values or {}, **more}), "StatefulSet", "redis")
    return pod, pod.container("redis")


def test_it_keeps_its_data_in_a_file_and_evicts_nothing():
    _, container = redis({"maxMemory": "700mb"})
    [script] = container["args"]
    for option in ("--appendonly yes", "--maxmemory 700mb", "--maxmemory-policy noeviction"):
        assert option in script
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]


def test_its_volume_has_the_size_and_class_of_the_values():
    persistence = {"size": "9Gi", "storageClass": "fast"}
    objects = render({"redis": {"persistence": persistence}})
    [claim] = find(objects, "StatefulSet", "redis")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["spec"]["resources"] == {"requests": {"storage": "9Gi"}}


def test_its_claims_say_nothing_that_another_version_of_the_chart_changes():
    [claim] = find(render(), "StatefulSet", "redis")["spec"]["volumeClaimTemplates"]
    assert not re.search(r"\d+\.\d+\.\d+", str(claim))
    assert "helm" not in str(claim)


def test_without_persistence_its_data_end_with_the_pod():
    objects = render({"redis": {"persistence": {"enabled": False}}})
    assert "volumeClaimTemplates" not in find(objects, "StatefulSet", "redis")["spec"]
    volumes = pod_of(objects, "StatefulSet", "redis").spec["volumes"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "4Gi"}} in volumes


def test_no_password_is_in_the_manifest():
    _, container = redis()
    passwords = [row for row in container["env"] if row["name"].endswith("_PASSWORD")]
    assert len(passwords) == 5
    assert all("secretKeyRef" in row["valueFrom"] for row in passwords)


def test_it_has_the_rules_of_users_that_are_in_deploy():
    folder = Path(__file__).parents[2] / "deploy" / "redis"
    data = find(render(), "ConfigMap", "redis")["data"]
    assert set(data) == {"users.acl", "make-users.sh"}
    for name, text in data.items():
        assert text.rstrip() == (folder / name).read_text().rstrip()


def test_new_rules_of_users_make_a_new_pod(tmp_path):
    chart = shutil.copytree(CHART, tmp_path / CHART.name)
    users = chart / "files" / "users.acl"
    users.write_text(users.read_text() + "\nuser another ~virnucpro:* -@all\n")
    before, after = (
        pod_of(objects, "StatefulSet", "redis").metadata["annotations"]
        for objects in (render(), render(chart=chart))
    )
    assert before != after


def test_it_has_time_to_write_its_file_when_it_ends():
    pod, _ = redis()
    assert pod.spec["terminationGracePeriodSeconds"] >= 60


def test_it_runs_as_the_user_of_its_image():
    context = redis()[0].spec["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (999, 1000, 1000)


@pytest.mark.parametrize("helm", ["helm4", "helm3"])
def test_on_openshift_it_runs_as_a_user_of_the_cluster_s(helm):
    objects = render({"podSecurityContext": ON_OPENSHIFT}, helm=helm)
    context = pod_of(objects, "StatefulSet", "redis").spec["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & {k for k, v in context.items() if v}
    assert context["runAsNonRoot"] is True


def test_with_tls_it_serves_nothing_else():
    pod, container = redis(TLS)
    assert "--port 0 --tls-port 6379 --tls-auth-clients no" in container["args"][0]
    [volume] = [v for v in pod.spec["volumes"] if v["name"] == "tls"]
    assert volume["secret"] == {"secretName": "redis-tls"}


def test_a_new_certificate_is_read_without_a_restart():
    _, container = redis(TLS)
    [option] = re.findall(r"--tls-auto-reload-interval \d+", container["args"][0])
    known = run(
        [embedded_program(), *option.split(), "--port", "0"],  # no port: it ends at once
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Configuration loaded" in known.stdout


def test_its_service_is_the_address_of_all_pods():
    objects = render()
    service = find(objects, "Service", "redis")
    [port] = service["spec"]["ports"]
    assert (service["metadata"]["name"], port["port"]) == (f"{RELEASE}-redis", 6379)
    labels = pod_of(objects, "StatefulSet", "redis").labels
    assert service["spec"]["selector"].items() <= labels.items()


@pytest.mark.parametrize(
    ("host", "written"), [("redis.example", "redis.example"), ("2001:db8::6", "[2001:db8::6]")]
)
def test_the_address_of_an_external_one_is_understood(host, written):
    objects = render(
        {
            "redis": {"enabled": False},
            "externalRedis": {"host": host, "port": 6380, "authentication": "none"},
        }
    )
    url = env_of(pod_of(objects, "Deployment", "keeper").container("keeper"))[
        "VIRNUCPRO_BROKER_URL"
    ]
    assert url == f"redis://{written}:6380/0"
    assert RedisAddress.parse(url).host == host


def test_with_an_external_one_there_is_none():
    external = {"enabled": False}
    objects = render(
        {
            "redis": external,
            "externalRedis": {"host": "redis.example"},
            "secrets": {"existingSecret": "fleet"},
        }
    )
    assert not find_all(objects, "StatefulSet")
    assert not [item for item in objects if item["metadata"]["name"].endswith("-redis")]
