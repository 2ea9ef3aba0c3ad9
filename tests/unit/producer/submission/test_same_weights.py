"""Submitting again after the weights under the same path have changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.job.manifest import Manifest, read_manifest, write_manifest
from common.ledger.ledger import Ledger
from common.store import FileStore
from common.wire.celery_app import make_celery
from producer.input.source import Source
from producer.scheduling.publisher import Publisher
from producer.submission.request import job_name, make_request
from producer.submission.submit import Hardware, Submission, submit
from tests.support.shards import store_shard
from tests.support.stores import folder_store

CONFIG = {
    "model_type": "esm",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
}


@pytest.fixture
def fasta(tmp_path) -> Path:
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    return path


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"first weights")
    return folder


@pytest.fixture
def store(tmp_path) -> FileStore:
    return folder_store(tmp_path / "store")


@pytest.fixture
def send(ledger: Ledger, redis_url: str, store: FileStore, fasta: Path):
    publisher = Publisher(ledger, make_celery(redis_url, []), high_water=1000)
    hardware = Hardware(on_gpu=False, workers=1)

    def send(model: Path | str, weights: set[str] = frozenset(), **options: Any) -> Submission:
        request = make_request(Source(str(fasta)), str(model), **options)
        return submit(
            *(request, store, ledger, publisher), hardware=hardware, tokens=None, weights=weights
        )

    return send


def retrain(model: Path, content: bytes = b"other weights") -> None:
    (model / "model.safetensors").write_bytes(content)


def warned(submission: Submission) -> bool:
    return any("have changed since" in warning for warning in submission.warnings)


def forget_digest(store: FileStore, manifest: Manifest) -> None:
    """Make a job one of an earlier version."""
    text = manifest.model_dump(mode="json")
    del text["model_digest"]
    store.delete(f"{manifest.job}/manifest.json")
    write_manifest(store, Manifest.model_validate(text))


# --- what the producer can see ------------------------------------------------------------------


def test_the_same_weights_resume_their_job_under_the_name_it_always_had(send, fasta, model):
    first, again = send(model), send(model)
    assert (first.resumed, again.resumed) == (False, True)
    request = make_request(Source(str(fasta)), str(model))
    assert first.job == again.job == job_name(request.source, request.fingerprint())
    assert not warned(first)
    assert not warned(again)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_other_weights_are_another_job_which_says_so(send, store, model, file):
    (model / "tokenizer.json").write_text("[1]")
    first = send(model)
    (model / file).write_text(f"{(model / file).read_text()} ")
    second = send(model)
    assert second.job != first.job
    assert not second.resumed
    assert [w for w in second.warnings if first.job in w and second.job in w]
    assert read_manifest(store, first.job).model_digest is not None
    assert read_manifest(store, first.job).model_digest != second.manifest.model_digest


def test_each_of_several_weights_has_its_own_job(send, model):
    jobs = {}
    for content in (b"first weights", b"second", b"third"):
        retrain(model, content)
        jobs[content] = send(model).job
    assert len(set(jobs.values())) == 3
    for content, job in reversed(jobs.items()):
        retrain(model, content)
        again = send(model)
        assert (again.job, again.resumed, warned(again)) == (job, True, False)


def test_the_job_of_new_weights_is_found_when_the_one_of_the_old_is_deleted(send, store, model):
    first = send(model)
    retrain(model)
    second = send(model)
    store.delete(f"{first.job}/")
    assert (send(model).job, send(model).resumed) == (second.job, True)


def test_a_single_file_is_seen_too(send, tmp_path):
    file = tmp_path / "esm2.pt"
    file.write_bytes(b"first")
    first = send(file)
    file.write_bytes(b"other")
    assert send(file).job != first.job


@pytest.mark.parametrize("model", ["random:esm2_t6_8M_UR50D", "/only/on/workers"])
def test_weights_that_the_producer_cannot_see_are_one_job(send, model):
    first = send(model)
    assert first.manifest.model_digest is None
    assert send(model).job == first.job


def test_weights_that_the_producer_cannot_see_are_a_note(send, model):
    assert any("no weights on this machine" in note for note in send("/only/on/workers").notes)
    assert not send(model).notes


@pytest.mark.parametrize("name", ["adapter_config.json", "model.safetensors.index.json"])
def test_what_no_worker_could_load_is_refused_before_anything_is_staged(send, store, model, name):
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / name).write_text("{}")
    with pytest.raises(UserError, match=r"adapter|index"):
        send(model)
    assert not list(store.keys(""))


# --- what only workers can tell -----------------------------------------------------------------


@pytest.mark.parametrize("model", ["random:esm2_t6_8M_UR50D", "/only/on/workers"])
def test_a_job_that_began_with_other_weights_than_workers_have_is_another(send, ledger, model):
    first = send(model)
    assert send(model, {"old"}).job == first.job  # nothing is computed yet
    ledger.jobs.pin_weights(first.manifest, "old")
    assert send(model).job == first.job  # there are no workers to ask
    assert send(model, {"old", "new"}).job == first.job
    second = send(model, {"new"})
    assert second.job != first.job
    assert warned(second)
    assert (send(model, {"new"}).job, send(model, {"old"}).job) == (second.job, first.job)


def test_workers_of_several_other_weights_are_no_new_job(send, ledger):
    first = send("/only/on/workers")
    ledger.jobs.pin_weights(first.manifest, "old")
    assert send("/only/on/workers", {"one", "two"}).job == first.job


def test_a_job_of_an_earlier_version_is_resumed_unless_its_weights_are_known_to_be_others(
    send, store, ledger, model
):
    first = send(model)
    forget_digest(store, first.manifest)
    retrain(model)
    assert send(model).job == first.job
    ledger.jobs.pin_weights(first.manifest, "old")
    assert send(model, {"old"}).job == first.job
    assert send(model, {"new"}).job != first.job


def test_the_weights_of_a_job_that_redis_forgot_are_those_of_its_shards(send, store, ledger, model):
    first = send(model)
    forget_digest(store, first.manifest)
    store_shard(store, first.manifest, 0)
    ledger.jobs.forget(first.job)
    weights = "w"
    assert send(model, {weights}).job == first.job
    ledger.jobs.forget(first.job)
    assert send(model, {"new"}).job != first.job
