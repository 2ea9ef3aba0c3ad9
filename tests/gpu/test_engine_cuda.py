"""The engine on a GPU, where copies and kernels are asynchronous: no result is read too early."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import (
    ALPHABET,
    random_fair_esm,
    save_contact_regression,
    save_fair_esm,
    tokenize,
)
from workers.embedder import Embedder
from workers.engine.engine import Engine, Outcome
from workers.models.loading import load_model

SPEC = ModelSpec(name="small", layers=4, dim=256, heads=4)
FORM = OutputForm(
    include=("mean", "bos", "max", "std", "per_residue", "logits", "entropy"),
    layers=(0, 2, -1),
    max_residues=1022,
)
BATCHES, THREADS = 12, 4


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Engine:
    path = save_fair_esm(random_fair_esm(SPEC), tmp_path_factory.mktemp("weights") / "small.pt")
    engine = Engine(load_model(str(path), device="cuda", dtype=torch.float16))
    engine.warm_up()
    engine.pack_tokens = dict.fromkeys(engine.models, 2000)
    return engine


@pytest.fixture(scope="module")
def batches() -> list[list[Record]]:
    draw = random.Random(0)
    return [
        [
            Record(row, f"p{row}", "".join(draw.choices("LAGVSERTIDPK", k=draw.randint(1, 1022))))
            for row in range(40)
        ]
        for _ in range(BATCHES)
    ]


@pytest.fixture(scope="module")
def expected(engine, batches) -> list[Outcome]:
    """Embed one batch after another in one thread."""
    return [engine.embed(batch, FORM) for batch in batches]


def test_the_exact_pseudo_perplexity_is_that_of_residues_masked_one_by_one(engine, batches):
    """Copies are packed together and overlap on the device; here each one is alone."""
    records = [Record(row, "", r.residues[:90]) for row, r in enumerate(batches[0][:8])]
    form = OutputForm(include=("mean", "pseudo_perplexity"), max_residues=1022)
    for rung in engine.models:
        found = engine.embed(records, form, rung=rung).embeddings
        assert len(found) == len(records)
        for record, value in zip(records, found.scores["pseudo_perplexity"], strict=True):
            np.testing.assert_allclose(value, masked_one_by_one(engine, record, rung), rtol=0.01)


def masked_one_by_one(engine: Engine, record: Record, rung: Rung) -> float:
    """The pseudo-perplexity of a record, each copy in a pass of its own."""
    ids = torch.from_numpy(engine.loaded.tokenize([record.residues]).ids).to("cuda")
    bounds, model = (
        torch.tensor([0, len(ids)], dtype=torch.int32, device="cuda"),
        engine.models[rung],
    )
    surprise = []
    for position in range(1, len(ids) - 1):
        copy = ids.clone()
        copy[position] = ALPHABET.mask_idx
        with torch.inference_mode():
            last = model.forward_packed(copy, bounds, len(ids), [SPEC.layers])[SPEC.layers]
            logs = engine._lm_head.get()(last[position]).log_softmax(0)
        surprise.append(-float(logs[ids[position]]))
    return float(np.exp(np.mean(surprise)))


def assert_same(found: Outcome, other: Outcome) -> None:
    assert found.embeddings.residues.tobytes() == other.embeddings.residues.tobytes()
    for name, values in other.embeddings.pooled.items():
        assert found.embeddings.pooled[name].tobytes() == values.tobytes()
    for name, values in other.embeddings.scores.items():
        assert found.embeddings.scores[name].tobytes() == values.tobytes()


def test_batches_of_several_threads_are_bit_for_bit_those_of_one(engine, batches, expected):
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda batch: engine.embed(batch, FORM), batches))
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_batches_that_are_given_up_leave_the_others_as_they_are(engine, batches, expected):
    class StopError(Exception):
        pass

    def run(index: int) -> Outcome | None:
        calls = iter(range(100))

        def stop_at_third() -> None:
            if index % 3 == 0 and next(calls) == 2:
                raise StopError

        try:
            return engine.embed(batches[index], FORM, between_packs=stop_at_third)
        except StopError:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(BATCHES)))
    assert [outcome is None for outcome in found] == [index % 3 == 0 for index in range(BATCHES)]
    for one, other in zip(found, expected, strict=True):
        if one is not None:
            assert_same(one, other)


def test_pooled_vectors_are_those_of_the_residues_beside_them(expected):
    for outcome in expected:
        embeddings = outcome.embeddings
        parts = np.split(embeddings.residues.astype(np.float64), np.cumsum(embeddings.lengths)[:-1])
        means = np.stack([part.mean(0) for part in parts])
        np.testing.assert_allclose(embeddings.pooled["mean"], means, atol=2e-2)


def test_a_row_that_is_not_finite_is_left_out_of_the_residues_too(engine, batches, expected):
    weight = engine.loaded.model.embed_tokens.weight
    rare = ALPHABET.get_idx("O")
    before = weight[rare].clone()
    spoiled = list(batches[0])
    spoiled[7] = spoiled[7]._replace(residues="O" * len(spoiled[7].residues))
    try:
        weight[rare] = torch.inf
        found = engine.embed(spoiled, FORM)
    finally:
        weight[rare] = before
    assert [bad.row for bad in found.unstable] == [7]
    lengths = expected[0].embeddings.lengths
    kept = np.repeat(np.arange(len(lengths)) != 7, lengths)
    assert found.embeddings.residues.tobytes() == expected[0].embeddings.residues[kept].tobytes()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_an_embedder_uses_the_gpu_that_it_is_given(tmp_path):
    path = save_fair_esm(random_fair_esm(SPEC), tmp_path / "small.pt")
    first, second = (Embedder(path, device=f"cuda:{index}") for index in range(2))
    before = torch.cuda.memory_reserved(0)
    found = second.embed(["MKTAYIAKQR", "GA"]).mean
    assert torch.cuda.memory_reserved(0) == before
    assert torch.cuda.memory_reserved(1) > 0
    assert found.tobytes() == first.embed(["MKTAYIAKQR", "GA"]).mean.tobytes()
    assert torch.cuda.current_device() == 0


def test_contacts_are_those_of_fair_esm_at_each_rung(batches, tmp_path):
    """Packs of many segments, whose attention flash kernels compute beside the maps."""
    oracle = random_fair_esm(SPEC)
    path = save_fair_esm(oracle, tmp_path / "small.pt")
    save_contact_regression(oracle, path)
    engine = Engine(load_model(str(path), device="cuda", dtype=torch.float16))
    engine.pack_tokens = dict.fromkeys(engine.models, 2000)
    records = batches[0][:12]
    form = OutputForm(include=("mean", "contacts"), residue_dtype="float32", max_residues=1022)
    with torch.inference_mode():
        expected = [oracle.predict_contacts(tokenize([r.residues]))[0].numpy() for r in records]
    for rung in engine.models:
        found = engine.embed(records, form, rung=rung).embeddings
        for position, right in enumerate(expected):
            np.testing.assert_allclose(found.pairs_of(position, "contacts"), right, atol=0.02)
