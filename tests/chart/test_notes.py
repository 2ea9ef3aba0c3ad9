"""What Helm says after an installation: commands with real names, and what deserves a warning."""

import re

import pytest

from tests.support.chart import HELMS, NAMESPACE, find, notes, refused, render

KINDS = {"deploy": "Deployment", "service": "Service", "cronjob": "CronJob", "secret": "Secret"}
FLOWER = {"flower": {"urlPrefix": "/fleet"}}
SUBMISSION = {"submissions": [{"name": "proteins", "input": "s3://bucket/proteins.fasta"}]}
EXTERNAL = {
    "redis": {"enabled": False},
    "externalRedis": {"host": "redis.example"},
    "secrets": {"existingSecret": "mine"},
    "flower": {"enabled": False},
}


def named(text):
    """Return kind and name of the objects in the commands."""
    return set(re.findall(r"\b(deploy|service|cronjob|secret)[/ ]([a-z0-9-]+)", text))


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("values", [{}, FLOWER, SUBMISSION, {"fullnameOverride": "fleet"}])
def test_every_object_in_a_command_is_there(values, helm):
    text, objects = notes(values, helm=helm), render(values, helm=helm)
    commands = [line for line in text.splitlines() if "kubectl" in line]
    assert all(f"--namespace {NAMESPACE}" in line for line in commands if "kubectl --" in line)
    found = named("\n".join(commands))
    assert {kind for kind, _ in found} >= {"deploy", "service", "secret"}
    for kind, name in found:
        find(objects, KINDS[kind], name)


def test_each_pool_has_its_range_of_pods():
    pools = [
        {"name": "scaled", "model": "esm2_t6_8M_UR50D"},
        {"name": "fixed", "model": "esm2_t6_8M_UR50D", "replicas": {"min": 2, "max": 2}},
        {"name": "resting", "model": "esm2_t12_35M_UR50D", "paused": True},
    ]
    text = notes({"pools": pools})
    assert "scaled: esm2_t6_8M_UR50D, fp16, 0 to 4 pods, one for each 300 batches left" in text
    assert "fixed: esm2_t6_8M_UR50D, fp16, 2 pods" in text
    assert "resting: esm2_t12_35M_UR50D, fp16, paused" in text


def test_the_command_to_submit_asks_for_what_the_first_pool_serves():
    pools = [{"name": "cpu", "model": "esm2_t6_8M_UR50D", "gpu": {"count": 0}}]
    wanted = "producer submit - --model esm2_t6_8M_UR50D --precision fp32 < proteins.fasta"
    assert wanted in notes({"pools": pools})


@pytest.mark.parametrize(("prefix", "path"), [("", ""), ("fleet", "fleet/")])
def test_flower_is_reached_through_a_port_of_this_machine(prefix, path):
    text = notes({"flower": {"urlPrefix": prefix}})
    assert (
        f"port-forward service/virnucpro-fleet-flower 5555, then http://127.0.0.1:5555/{path}\n"
        in text
    )


def test_flower_is_where_the_ingress_has_it():
    ingress = {"enabled": True, "host": "fleet.example", "tlsSecret": "certificate"}
    text = notes({"flower": {"ingress": ingress, "urlPrefix": "/fleet/"}})
    assert "https://fleet.example/fleet/\n" in text  # without the slash it is not found
    assert "port-forward" not in text


def test_flower_is_where_the_gateway_has_it():
    route = {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["fleet.example"]}
    text = notes({"flower": {"httpRoute": route, "urlPrefix": "/fleet"}})
    assert "fleet.example/fleet/, through its gateway\n" in text


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({}, "made at random"),
        ({"redis": {"persistence": {"enabled": False}}}, "Redis has no volume"),
        ({}, "nothing scrapes keepers and workers"),
    ],
)
def test_what_may_surprise_later_is_said(values, warning):
    assert warning in notes(values)


def test_a_release_that_has_all_is_warned_of_nothing():
    text = notes({**EXTERNAL, "monitoring": {"podMonitor": True, "rules": True}})
    assert "Warning" not in text
    assert "Note" not in text
    assert "Flower" not in text


def test_other_objects_are_rendered_as_templates():
    written = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}-a"},
    }
    text = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n"
        '  name: {{ include "fleet.fullname" . }}-b\ndata: {a: b}'
    )
    objects = render({"extraObjects": [written, text]})
    find(objects, "ConfigMap", "a")
    find(objects, "ConfigMap", "b")


def test_an_error_in_another_object_is_refused():
    assert "function" in refused({"extraObjects": ["a: {{ nothing }}"]})
