"""Weights by a revision of the hub, and from a bucket: a job is computed with those it names."""

from pathlib import Path

import boto3
import h5py
import numpy as np
import pytest

from common.job.manifest import read_manifest
from common.store import open_store
from common.wire.queues import Queues
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.fixtures import BUCKET, TINY
from tests.support.hub import running_hub
from tests.support.hugging_face import to_hugging_face
from tests.support.processes import (
    START_SECONDS,
    Fleet,
    clean_environment,
    is_ready,
    run,
    running_worker,
    wait_until,
)
from tests.support.results import load, oracle_means

NAME = "esm2_t6_8M_UR50D"
SEQUENCES = {"a": "MKTAYIAKQR", "b": "GAVLIPFMWSTCYNQDEKRH"}
BOUND = 2e-5


@pytest.fixture(scope="module")
def oracles():
    return [random_fair_esm(TINY, seed=seed) for seed in (0, 1)]


@pytest.fixture
def fasta(tmp_path) -> Path:
    path = tmp_path / "p.fasta"
    path.write_text("".join(f">{id_}\n{sequence}\n" for id_, sequence in SEQUENCES.items()))
    return path


def client_of(s3):
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
    )


def difference(file: Path, oracle) -> float:
    means = oracle_means(oracle, list(SEQUENCES.values()), 2)
    return float(np.abs(load(file)["mean"] - means).max())


def test_a_worker_computes_jobs_of_its_own_revision_alone(fleet, oracles, fasta, tmp_path):
    with running_hub() as hub:
        for oracle, tag in zip(oracles, ("v1.0", "main"), strict=True):
            to_hugging_face(oracle).save_pretrained(tmp_path / tag)
            hub.push_folder(f"facebook/{NAME}", tmp_path / tag, tag)
        variables = {**fleet.environment, **hub.environment(tmp_path / "cache")}
        there = Fleet(fleet.broker_url, fleet.store_url, variables)
        with there.workers(NAME, tmp_path, "--revision", "v1.0"):
            options = ("--model", NAME, "--revision", "v1.0", "-o", tmp_path / "e.h5")
            done = fleet.producer("submit", fasta, *options)
            assert done.returncode == 0, done.stderr
            other = fleet.producer("submit", fasta, "--model", NAME)
            assert "the job waits: no worker" in other.stderr
    assert difference(tmp_path / "e.h5", oracles[0]) <= BOUND
    with h5py.File(tmp_path / "e.h5") as file:
        assert (file.attrs["model"], file.attrs["revision"]) == (f"{NAME}@v1.0", "v1.0")
        job = str(file.attrs["job"])
    store = open_store(fleet.store_url)
    assert read_manifest(store, job).model == f"{NAME}@v1.0"
    assert read_manifest(store, other.stdout.strip()).model == NAME
    assert Queues(fleet.ledger.redis).length(f"{NAME}.fp16") == 1


def test_a_worker_that_starts_before_the_hub_is_there_waits_for_it(fleet, oracles, tmp_path):
    to_hugging_face(oracles[0]).save_pretrained(tmp_path / "weights")
    with running_hub() as hub:
        hub.push_folder(f"facebook/{NAME}", tmp_path / "weights", "main")
        hub.silent.set()
        variables = {**fleet.environment, **hub.environment(tmp_path / "cache")}
        with running_worker(NAME, tmp_path / "worker.log", variables) as worker:
            workers = fleet.ledger.workers
            wait_until(lambda: [w.stage for w in workers.all()] == ["waiting"], START_SECONDS)
            assert "Waiting for the weights. The weights of" in worker.log.read_text()
            hub.silent.clear()
            wait_until(lambda: any(map(is_ready, workers.all())), START_SECONDS)
            assert "ended" not in worker.log.read_text()


def test_weights_in_a_bucket_are_served_and_others_in_their_place_are_another_job(
    s3_fleet, s3, oracles, fasta, tmp_path
):
    key = f"weights/{tmp_path.name}/model.pt"
    client = client_of(s3)

    def upload(oracle) -> None:
        client.upload_file(str(save_fair_esm(oracle, tmp_path / "model.pt")), BUCKET, key)

    upload(oracles[0])
    variables = {**s3_fleet.environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    fleet = Fleet(s3_fleet.broker_url, s3_fleet.store_url, variables)
    model = ("--model", f"s3://{BUCKET}/{key}")
    with fleet.workers(model[1], tmp_path) as logs:
        done = fleet.producer("submit", fasta, *model, "-o", tmp_path / "e.h5")
        assert done.returncode == 0, done.stderr
        assert difference(tmp_path / "e.h5", oracles[0]) <= BOUND
        [version] = (tmp_path / "cache" / "virnucpro-fleet" / "weights").glob("*/*")
        upload(oracles[1])
        done = fleet.producer("submit", fasta, *model)
        assert "have changed since this input was submitted" in done.stderr
        wait_until(lambda: "other weights" in logs[0].read_text(), 30)
    with h5py.File(tmp_path / "e.h5") as file:
        first = fleet.ledger.jobs.progress(file.attrs["job"])
        assert file.attrs["model_digest"] == first.model_digest == version.name
    second = fleet.ledger.jobs.progress(done.stdout.strip())
    assert second.model_digest not in (None, first.model_digest)
    assert second.weights is None


def test_a_download_prints_what_a_worker_takes_and_is_done_once(s3, tmp_path):
    key = f"weights/{tmp_path.name}/model.pt"
    client = client_of(s3)
    client.put_object(Bucket=BUCKET, Key=key, Body=b"a checkpoint")
    environment = clean_environment(**s3.environment(), XDG_CACHE_HOME=str(tmp_path / "cache"))

    def download(*options: object):
        words = ("download", "--model", f"s3://{BUCKET}/{key}", *options)
        return run("workers.cli", *words, environment=environment)

    for options, folder in (((), tmp_path / "cache"), (("--to", tmp_path / "to"), tmp_path / "to")):
        first, second = download(*options), download(*options)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr
        [place] = first.stdout.splitlines()
        assert second.stdout == first.stdout
        assert Path(place).read_bytes() == b"a checkpoint"
        assert Path(place).is_relative_to(folder)
        assert "Downloading" in first.stderr
        assert "Downloading" not in second.stderr
    missing = download("--to", tmp_path / "none" / "to")
    assert (missing.returncode, "mkdir -p" in missing.stderr) == (2, True)
