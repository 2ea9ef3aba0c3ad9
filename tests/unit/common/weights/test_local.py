"""Weights in a bucket: how they are known, and their copy on this machine."""

import json
import threading
from pathlib import Path

import boto3
import pytest

from common.checks.check import Outcome
from common.checks.weights import check_weights
from common.class_head import ClassHead, class_head_of
from common.errors import UnavailableError, UserError
from common.model_bucket import NotAllowedError, look
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, MODELS
from common.store import StoreError
from common.weights import local
from common.weights.copies import RECORD
from common.weights.download import download
from common.weights.local import copies_of, local_weights
from tests.support.fixtures import BUCKET
from tests.support.s3_proxy import Fault, S3Proxy, s3_proxy

CONFIG = {
    "model_type": "esm",
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "layer_norm_eps": 1e-5,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": bytes(range(256)) * 40,
    "README.md": b"not needed",
    "older/model.safetensors": b"of another model",
}


class Bucket:
    """A prefix of a bucket."""

    def __init__(self, client, prefix: str) -> None:
        self.client, self.prefix = client, prefix
        self.url = f"s3://{BUCKET}/{prefix}"

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=data)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch) -> Bucket:
    """A model in a bucket, and an empty cache."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Bucket(boto3.client("s3"), f"{tmp_path.name}/model")
    for name, data in FILES.items():
        made.put(name, data)
    return made


@pytest.fixture
def proxy(bucket, s3, monkeypatch):
    with s3_proxy(s3) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.endpoint_url)
        yield running


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """The URLs of all downloads from now on."""
    found: list[str] = []
    real = local.download

    def noted(listing, folder):
        found.append(listing.url)
        real(listing, folder)

    monkeypatch.setattr(local, "download", noted)
    return found


@pytest.mark.parametrize(
    ("spelling", "text"),
    [("s3://b/x", "s3://b/x"), ("s3://b/x/", "s3://b/x"), ("S3://b/x/y.pt", "s3://b/x/y.pt")],
)
def test_a_url_is_a_model_without_a_look_at_it(spelling, text):
    source = ModelSource.parse(spelling)
    assert source.text == text
    assert ModelSource.parse(text) == source
    assert (source.is_stored, source.is_path, source.is_random) == (True, False, False)
    assert source.name == text.rpartition("/")[2].removesuffix(".pt")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://user:s3cret@bucket/x", "s3://a b/x", "s3:///x", "s3://bucket"]
)
def test_a_url_without_a_bucket_or_with_a_password_is_refused_and_not_shown(url):
    with pytest.raises(UserError) as caught:
        ModelSource.parse(url)
    assert "s3cret" not in str(caught.value)


def test_queues_of_buckets_are_like_those_of_paths():
    queues = {ModelSource.parse(text).queue for text in ("s3://b/x", "s3://b/y", "/b/x")}
    assert len(queues) == 3
    assert all(queue.rpartition("-")[0] in {"s3", "path"} for queue in queues)


def test_a_url_of_a_folder_is_the_folder():
    assert ModelSource.parse("file:///models/x") == ModelSource.parse("/models/x")


def test_the_producer_tells_shape_and_weights_from_the_bucket(bucket):
    source = ModelSource.parse(bucket.url)
    spec = source.spec()
    assert (spec.layers, spec.dim, spec.name) == (2, 64, "model")
    before = source.digest()
    bucket.put("README.md", b"other")
    assert source.digest() == before
    bucket.put("model.safetensors", b"other weights")
    assert source.digest() != before


def test_the_producer_tells_the_classes_from_the_bucket(bucket):
    source = ModelSource.parse(bucket.url)
    with pytest.raises(UserError, match="has no classification head"):
        class_head_of(source)
    config = json.loads(FILES["config.json"])
    config |= {"architectures": ["EsmForTokenClassification"], "id2label": {"0": "a", "1": "b"}}
    bucket.put("config.json", json.dumps(config).encode())
    assert class_head_of(source) == ClassHead(True, ("a", "b"))
    bucket.delete("model.safetensors")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        class_head_of(source)


def test_a_model_of_dna_is_known_as_such(bucket):
    config = {"model_type": "bert", "alibi_starting_size": 512, "hidden_size": 64}
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 4}
    bucket.put("config.json", json.dumps({**config, **sizes}).encode())
    assert ModelSource.parse(bucket.url).spec().family is DNABERT_S


def test_a_copy_is_made_once_and_used_again(bucket, downloads):
    source = ModelSource.parse(bucket.url)
    found = local_weights(source)
    assert found is not None
    assert found.digest == source.digest()
    assert {path.name for path in found.path.iterdir() if path.name[0] != "."} == {
        "config.json",
        "model.safetensors",
    }
    assert (found.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert local_weights(source) == found
    assert downloads == [bucket.url]


def test_other_objects_are_other_weights(bucket, downloads):
    source = ModelSource.parse(bucket.url)
    first = local_weights(source)
    bucket.put("model.safetensors", b"other weights")
    second = local_weights(source)
    assert first is not None
    assert second is not None
    assert second.digest != first.digest
    assert (second.path / "model.safetensors").read_bytes() == b"other weights"
    assert len(downloads) == 2


def test_a_damaged_copy_is_made_again(bucket, downloads):
    source = ModelSource.parse(bucket.url)
    found = local_weights(source)
    assert found is not None
    (found.path / "model.safetensors").write_bytes(bytes(len(FILES["model.safetensors"])))
    assert local_weights(source) == found
    assert (found.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert len(downloads) == 2


def test_threads_and_processes_of_one_machine_download_once(bucket, downloads):
    source = ModelSource.parse(bucket.url)
    threads = [threading.Thread(target=local_weights, args=(source,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert downloads == [bucket.url]


def test_a_file_of_fair_esm_in_a_bucket_is_a_model(bucket):
    bucket.put("esm2_t6_8M_UR50D.pt", b"a checkpoint")
    source = ModelSource.parse(f"{bucket.url}/esm2_t6_8M_UR50D.pt")
    assert source.spec() == MODELS["esm2_t6_8M_UR50D"]
    found = local_weights(source)
    assert found is not None
    assert found.path.name == "esm2_t6_8M_UR50D.pt"
    assert found.path.read_bytes() == b"a checkpoint"


def test_objects_that_are_no_model_are_refused_with_what_is_there(bucket):
    for name in ("model.safetensors", "config.json"):
        bucket.delete(name)
    with pytest.raises(UserError, match=r"no model\.safetensors .* It has: README\.md\."):
        ModelSource.parse(bucket.url).digest()
    with pytest.raises(UserError, match="no such object with weights"):
        ModelSource.parse(f"{bucket.url}/none.pt").digest()


def test_a_copy_is_enough_while_the_bucket_does_not_answer(bucket, proxy: S3Proxy, downloads):
    source = ModelSource.parse(bucket.url)
    found = local_weights(source)
    proxy.fail(Fault.ACCESS_DENIED, "GET", "")
    assert local_weights(source) == found
    (copies_of(source) / found.digest / RECORD).unlink()
    with pytest.raises(StoreError):
        local_weights(source)


def test_a_producer_that_may_not_list_leaves_it_to_the_workers(bucket, proxy: S3Proxy):
    proxy.fail(Fault.ACCESS_DENIED, "GET", "")
    source = ModelSource.parse(bucket.url)
    assert source.digest() is None
    assert source.spec() is None
    with pytest.raises(NotAllowedError):
        look(source.text)


def test_objects_that_change_meanwhile_are_not_mixed(bucket, monkeypatch):
    real = local.listing_of

    def after_a_change(*arguments):
        bucket.put("model.safetensors", bytes(len(FILES["model.safetensors"])))
        return real(*arguments)

    monkeypatch.setattr(local, "listing_of", after_a_change)
    with pytest.raises(UnavailableError, match="changed while it was downloaded"):
        local_weights(ModelSource.parse(bucket.url))
    assert not list(copies_of(ModelSource.parse(bucket.url)).glob("*/config.json"))


def test_a_download_to_a_folder_is_what_a_worker_takes(bucket, tmp_path: Path, proxy: S3Proxy):
    source, to = ModelSource.parse(bucket.url), tmp_path / "to"
    assert download(source, to) == to
    assert ModelSource.parse(to).spec().layers == source.spec().layers
    before = {path: path.stat().st_mtime_ns for path in to.iterdir()}
    assert download(source, to) == to
    assert {path: path.stat().st_mtime_ns for path in to.iterdir()} == before
    bucket.put("model.safetensors", b"other weights")
    assert download(source, to) == to
    assert (to / "model.safetensors").read_bytes() == b"other weights"
    proxy.fail(Fault.ACCESS_DENIED, "GET", "")
    assert download(source, to) == to


@pytest.mark.parametrize("model", ["random:esm2_t6_8M_UR50D", "/models/x"])
def test_what_need_not_be_downloaded_is_refused(model):
    with pytest.raises(UserError, match="Give a model's name, or s3://"):
        download(ModelSource.parse(model))


def test_the_doctor_describes_a_copy_that_takes_long_to_read(bucket, monkeypatch):
    bucket.put("model.safetensors", (2).to_bytes(8, "little") + b"{}")
    source = ModelSource.parse(bucket.url)
    local_weights(source)
    [found] = check_weights(source, "worker")
    assert found.outcome is Outcome.OK
    read = threading.Event()
    monkeypatch.setattr("common.model_digest.hash_file", lambda *_: "0" if read.wait(60) else "")
    monkeypatch.setattr("common.checks.weights.DIGEST_SECONDS", 0.1)
    [found] = check_weights(source, "worker")
    read.set()
    assert found.outcome is Outcome.WARNING
    assert "2 objects, 0.00 GB" in found.text
    assert "too short to read them" in found.text


@pytest.mark.parametrize("fault", [Fault.INTERNAL_ERROR, Fault.ACCESS_DENIED])
def test_a_server_that_cannot_serve_is_another_error_than_one_that_refuses(bucket, proxy, fault):
    proxy.fail(fault, "GET", "")
    with pytest.raises(UserError) as caught:
        local_weights(ModelSource.parse(bucket.url))
    assert isinstance(caught.value, UnavailableError) == (fault is Fault.INTERNAL_ERROR)
