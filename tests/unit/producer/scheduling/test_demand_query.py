"""A pool by model and precision: the one that submit queues to and workers serve, or an error."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import UserError
from common.model_source import ModelSource, with_revision
from common.rungs import Rung, model_precision
from common.wire.signing import MessageKeys
from producer.input.source import Source
from producer.scheduling.demand_query import PRECISIONS, pool_of_query, rung_of
from producer.scheduling.keeper import Keeper
from producer.scheduling.keeper_http import KeeperPages
from producer.submission.request import make_request, queue_of_request
from workers.process.entry import worker_info

MODELS = [
    ("esm2_t33_650M_UR50D", None),
    ("Facebook/ESM2_t33_650M_UR50D", None),
    ("esm2_t6_8M_UR50D", "v1.0"),
    ("dnabert_s@a/branch+x", None),
    ("random:esm2_t6_8M_UR50D", None),
    ("/models/fine-tuned", None),
    ("file:///models/../models/fine-tuned/", None),
    ("s3://bucket/models/fine-tuned/", None),
]


@pytest.fixture
def proteins(tmp_path: Path) -> Source:
    path = tmp_path / "p.faa"
    path.write_text(">a\nMKV\n")
    return Source(str(path))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("model", "revision"), MODELS)
def test_the_pool_is_the_queue_that_submit_names_and_workers_serve(
    proteins, model, revision, precision, monkeypatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")  # what is in the bucket is not asked for
    monkeypatch.setattr(ModelSource, "spec", lambda _: None)
    query = {"model": model, "precision": precision} | ({"revision": revision} if revision else {})
    pool = pool_of_query(query)
    named = with_revision(model, revision)
    assert pool == queue_of_request(make_request(proteins, named, precision=precision))
    source = ModelSource.parse(model, revision)
    for device, weights in (("cuda", model_precision(precision, on_gpu=True)), ("cpu", Rung.FP32)):
        worker = worker_info(source, "cpu", weights, MessageKeys(), "host", 0.0)
        assert pool in worker.queues, device


@pytest.fixture
def without_fp16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    rung_of.cache_clear()
    monkeypatch.setenv("VIRNUCPRO_DISABLE_FP16", "1")
    yield
    rung_of.cache_clear()


def test_where_fp16_is_forbidden_all_jobs_are_in_the_pool_of_fp32_and_it_is_said_once(
    without_fp16, caplog
):
    for _ in range(3):
        found = [pool_of_query({"model": "dnabert_s", "precision": name}) for name in PRECISIONS]
        assert found == ["dnabert_s.fp32"] * 3
    assert len(caplog.records) == len(["fp16", "bf16"])


def test_without_a_precision_all_pools_of_the_model_are_meant():
    assert pool_of_query({"model": "ESM2_t6_8M_UR50D"}) == "esm2_t6_8M_UR50D"
    assert pool_of_query({"pool": "a.b"}) == "a.b"
    assert pool_of_query({}) is None


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"model": "esm2_t6_8M_UR50D", "precision": "auto"}, "whether the workers have GPUs"),
        ({"model": "esm2_t6_8M_UR50D", "precision": "fp8"}, "give fp16, bf16 or fp32"),
        ({"model": "esm2_t6_8M_UR50D", "precision": "FP16"}, "give fp16, bf16 or fp32"),
        ({"model": "esm2_t6_8M_UR50D", "precision": ""}, "precision is empty"),
        ({"model": "esm2_t6_9M_UR50D", "precision": "fp16"}, "Did you mean esm2_t6_8M_UR50D"),
        ({"model": "", "precision": "fp16"}, "model is empty"),
        ({"model": "./weights"}, "a path must be absolute"),
        ({"model": "~/weights"}, "a path must be absolute"),
        ({"model": "file://~/weights"}, "a path must be absolute"),
        ({"model": "weights.pt"}, "a path must be absolute"),
        ({"model": "/models/a", "revision": "main"}, "only a model on the Hugging Face hub"),
        ({"model": "dnabert_s@v1", "revision": "v2"}, "has one already"),
        ({"model": "dnabert_s", "revision": "v1 0"}, "not the name of a branch"),
        ({"model": "s3://me:secret@bucket/x"}, "Credentials go into"),
        ({"pool": "dnabert_s.fp16", "model": "dnabert_s"}, "pool and model exclude each other"),
        ({"pool": "dnabert_s.fp16", "precision": "fp16"}, "pool and precision exclude each other"),
        ({"pool": ""}, "pool is empty"),
        ({"precision": "fp16"}, "add model=NAME"),
        ({"revision": "main"}, "add model=NAME"),
        ({"modle": "dnabert_s"}, "Ask by pool, or by model and precision"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_wrong_query_is_refused_with_the_reason(query, said, redis_url, job):
    with pytest.raises(UserError, match=said) as caught:
        pool_of_query(query)
    assert "secret" not in str(caught.value)
    assert "--" not in str(caught.value)  # a query has no options
    pages = KeeperPages(redis_url, Keeper(job.store, job.ledger, job.publisher))
    answer = pages.demand(query)  # before it is known whether anything is known
    assert (answer.status, json.loads(answer.body)) == (400, {"error": str(caught.value)})


def test_no_file_of_the_keeper_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    looked = []
    monkeypatch.setattr(os.path, "exists", lambda path: looked.append(path) or True)
    assert pool_of_query({"model": "/models/x"}).startswith("path-")
    for model in ("./weights", "weights/x", "~/x"):
        with pytest.raises(UserError, match="a path must be absolute"):
            pool_of_query({"model": model})
    for model in ("weights", "random:weights", "weights@v1", "file://weights", "x:/y"):
        with pytest.raises(UserError, match=f"model={model}: not known. Give"):
            pool_of_query({"model": model})
    assert looked == []


def test_the_demand_is_answered_by_model_and_precision(redis_url, job):
    pages = KeeperPages(redis_url, Keeper(job.store, job.ledger, job.publisher))
    job.open()
    pages.keeper.step()
    model = "random:esm2_t6_8M_UR50D"

    def asked(**query: str) -> object:
        answer = pages.demand({"model": model, **query})
        assert answer.status == 200
        return json.loads(answer.body)

    stem = "random.esm2_t6_8M_UR50D"
    assert asked(precision="fp16") == {"pool": f"{stem}.fp16", "batches": 3}
    assert asked(precision="fp32") == {"pool": f"{stem}.fp32", "batches": 0}
    assert asked() == {"pool": stem, "batches": 3}
