"""A worker finds its weights wherever the chart puts them, as the manifests run it."""

import os
from dataclasses import replace
from pathlib import Path

import boto3
import h5py
import pytest

from tests.support.chart import Object, Pod, pod_of, render
from tests.support.fair_esm import random_fair_esm
from tests.support.fixtures import BUCKET, TINY
from tests.support.hub import Hub, running_hub
from tests.support.hugging_face import to_hugging_face
from tests.support.processes import START_SECONDS, Fleet, running_fleet, wait_until
from tests.support.rendered_container import Node, needs_bubblewrap

NAME = "esm2_t6_8M_UR50D"

pytestmark = needs_bubblewrap


@pytest.fixture
def fleet(sockets: Path, tmp_path: Path):
    with running_fleet(sockets, f"file://{tmp_path}/store") as running:
        yield running


@pytest.fixture
def hub(tmp_path):
    to_hugging_face(random_fair_esm(TINY)).save_pretrained(tmp_path / "model")
    with running_hub() as running:
        running.push_folder(f"facebook/{NAME}", tmp_path / "model", "main")
        yield running


def a_node(fleet: Fleet, tmp_path: Path, hub: Hub | None = None) -> Node:
    names = ("tmp", "weights", "store")
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)
    return Node(
        volumes={name: tmp_path / name for name in names},
        secrets=dict.fromkeys(("worker-password", "message-key"), "secret"),
        variables={
            "VIRNUCPRO_BROKER_URL": fleet.broker_url,
            "VIRNUCPRO_METRICS": "",
            **({"HF_HUB_DISABLE_XET": "1"} if hub else {}),
        },
        shared=Path(fleet.broker_url.removeprefix("unix://").partition("?")[0]).parent,
    )


def objects_of(model: str, source: str, endpoint: str = "") -> list[Object]:
    pool = {"name": "cpu", "model": model, "gpu": {"count": 0}, "tolerations": []}
    weights = {"source": source, "hub": {"endpoint": endpoint}}
    return render({"pools": [pool], "weights": weights, "secrets": {"signMessages": False}})


def check_serves(node: Node, pod: Pod, fleet: Fleet, tmp_path: Path, model: str) -> None:
    """Run a worker and a job of it; the worker's probes say what it does."""
    (tmp_path / "p.fasta").write_text(">a\nMKTAYIAKQR\n")
    with node.running(pod, "worker", tmp_path / "worker.log"):
        wait_until(lambda: node.probe(pod, "worker", "startupProbe"), START_SECONDS)
        wait_until(lambda: node.probe(pod, "worker", "readinessProbe"), START_SECONDS)
        options = ("--model", model, "--output", tmp_path / "e.h5")
        done = fleet.producer("submit", tmp_path / "p.fasta", *options)
        assert done.returncode == 0, done.stderr + (tmp_path / "worker.log").read_text()
        assert node.probe(pod, "worker", "livenessProbe")
    assert not node.probe(pod, "worker", "readinessProbe")
    with h5py.File(tmp_path / "e.h5") as file:
        assert len(file["mean"]) == 1


def test_a_worker_serves_what_its_own_download_left_and_asks_the_hub_nothing(fleet, hub, tmp_path):
    node = a_node(fleet, tmp_path, hub)
    pod = pod_of(objects_of(NAME, "download", hub.url), "Deployment", "cpu")
    done = node.run(pod, "weights")
    assert done.returncode == 0, done.stderr
    asked = len(hub.asked)
    check_serves(node, pod, fleet, tmp_path, NAME)
    assert len(hub.asked) == asked > 0


def test_a_worker_serves_from_a_volume_for_reading_only_that_the_hook_has_filled(
    fleet, hub, tmp_path
):
    node = a_node(fleet, tmp_path, hub)
    objects = objects_of(NAME, "volume", hub.url)
    done = node.run(pod_of(objects, "Job", "weights"), "weights")
    assert done.returncode == 0, done.stderr
    asked = len(hub.asked)
    pod = pod_of(objects, "Deployment", "cpu")
    check_serves(node, pod, fleet, tmp_path, NAME)
    assert len(hub.asked) == asked > 0
    mode = [
        m.get("readOnly") for m in pod.container("worker")["volumeMounts"] if m["name"] == "weights"
    ]
    assert mode == [True]


def test_a_volume_that_is_filled_is_not_downloaded_to_again(fleet, hub, tmp_path):
    node = a_node(fleet, tmp_path, hub)
    pod = pod_of(objects_of(NAME, "volume", hub.url), "Job", "weights")
    assert node.run(pod, "weights").returncode == 0
    files = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "weights").rglob("*.safetensors")
    }
    assert node.run(pod, "weights").returncode == 0
    after = (tmp_path / "weights").rglob("*.safetensors")
    assert {path: path.stat().st_mtime_ns for path in after} == files != {}


def test_the_hook_fails_if_one_of_its_models_cannot_be_had(fleet, hub, tmp_path):
    pool = {"name": "a", "model": "esm2_t12_35M_UR50D", "weightsSource": "volume"}
    other = {**pool, "name": "b", "model": NAME}
    values = {"pools": [pool, other], "weights": {"hub": {"endpoint": hub.url}}}
    pod = pod_of(render(values), "Job", "weights")
    done = a_node(fleet, tmp_path, hub).run(pod, "weights")
    assert done.returncode != 0
    assert "esm2_t12_35M_UR50D" in done.stderr


@pytest.mark.parametrize("source", ["download", "volume"])
def test_a_worker_serves_weights_that_were_downloaded_from_a_bucket(
    s3, sockets, tiny, tmp_path, source
):
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
    )
    client.upload_file(str(tiny), BUCKET, f"{tmp_path.name}/tiny.pt")
    model, store = f"s3://{BUCKET}/{tmp_path.name}/tiny.pt", f"s3://{BUCKET}/{tmp_path.name}-store"
    values = {
        "pools": [{"name": "cpu", "model": model, "gpu": {"count": 0}}],
        "weights": {"source": source},
        "store": {
            "url": store,
            "s3": {"endpoint": s3.endpoint_url, "region": s3.region, "existingSecret": "keys"},
        },
        "secrets": {"signMessages": False},
    }
    objects = render(values)
    pod = pod_of(objects, "Deployment", "cpu")
    with running_fleet(sockets, store, **s3.environment()) as fleet:
        keys = {"access-key-id": s3.access_key, "secret-access-key": s3.secret_key}
        node = a_node(fleet, tmp_path)
        node = replace(node, secrets={**node.secrets, **keys})
        hook = pod if source == "download" else pod_of(objects, "Job", "weights")
        done = node.run(hook, "weights")
        assert done.returncode == 0, done.stderr
        check_serves(node, pod, fleet, tmp_path, model)


def test_what_a_killed_container_left_does_not_make_the_next_one_ready(fleet, tmp_path):
    node = a_node(fleet, tmp_path)
    pod = pod_of(objects_of(f"random:{NAME}", "download"), "Deployment", "cpu")
    left = [tmp_path / "tmp" / name for name in ("ready", "live")]
    for file in left:
        file.touch()
        os.utime(file, (1e9, 1e9))
    assert not node.probe(pod, "worker", "startupProbe")
    with node.running(pod, "worker", tmp_path / "worker.log"):
        wait_until(lambda: node.probe(pod, "worker", "startupProbe"), START_SECONDS)
        ready = left[0]
        assert not ready.exists() or ready.stat().st_mtime > 1e9


@pytest.mark.parametrize("source", ["download", "image"])
def test_a_worker_without_weights_to_find_needs_no_place_for_them(fleet, tmp_path, source):
    model = f"random:{NAME}"
    pod = pod_of(objects_of(model, source), "Deployment", "cpu")
    assert "/weights" not in [m["mountPath"] for m in pod.container("worker")["volumeMounts"]]
    check_serves(a_node(fleet, tmp_path), pod, fleet, tmp_path, model)


def test_a_worker_whose_volume_lacks_its_weights_says_so_and_ends(fleet, tmp_path):
    pod = pod_of(objects_of(NAME, "volume"), "Deployment", "cpu")
    done = a_node(fleet, tmp_path).run(pod, "worker")
    assert done.returncode == 2
    assert "are not in the local cache" in done.stderr
