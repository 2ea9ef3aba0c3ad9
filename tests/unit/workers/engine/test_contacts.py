"""Probabilities of contacts: fair-esm is the oracle on the same random weights."""

import random
from pathlib import Path

import esm
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.alphabet import SPECIAL_TOKENS
from common.errors import UserError
from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support.fair_esm import random_fair_esm, save_contact_regression, save_fair_esm, tokenize
from tests.support.hugging_face import to_hugging_face
from workers.embedder import Embedder
from workers.engine.engine import DTYPES, Engine
from workers.models import contact_head
from workers.models.loading import load_model

SPEC = ModelSpec(name="esm2_small", layers=3, dim=64, heads=4)
FORM = OutputForm(include=("mean", "contacts"), residue_dtype="float32", max_residues=1022)


@pytest.fixture(scope="module")
def oracle() -> esm.ESM2:
    model = random_fair_esm(SPEC)
    generator = torch.Generator().manual_seed(3)
    regression = model.contact_head.regression
    regression.weight.copy_(4 * torch.randn(regression.weight.shape, generator=generator))
    regression.bias.fill_(-0.5)
    return model


@pytest.fixture(scope="module")
def checkpoint(oracle, tmp_path_factory) -> Path:
    """A checkpoint in the published form, with the regression in the file beside it."""
    path = save_fair_esm(oracle, tmp_path_factory.mktemp("weights") / "esm2_small.pt")
    save_contact_regression(oracle, path)
    return path


@pytest.fixture(scope="module")
def folder(oracle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "hugging_face"
    to_hugging_face(oracle).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def records() -> list[Record]:
    draw = random.Random(1)
    lengths = [1, 40, 150, 7, 2, 90, 64]
    return [
        Record(row, f"id{row}", "".join(draw.choices("LAGVSERTIDPKXB-", k=length)))
        for row, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def expected(oracle, records) -> list[np.ndarray]:
    with torch.inference_mode():
        return [oracle.predict_contacts(tokenize([r.residues]))[0].numpy() for r in records]


def engine_of(path: Path | str, precision: Rung = Rung.FP32) -> Engine:
    engine = Engine(load_model(str(path), dtype=DTYPES[precision]))
    engine.pack_tokens = dict.fromkeys(engine.models, 200)  # several packs of several segments
    return engine


def contacts_of(engine: Engine, records: list[Record], **options: Rung) -> list[np.ndarray]:
    found = engine.embed(records, FORM, **options).embeddings
    return [found.pairs_of(position, "contacts") for position in range(len(records))]


def largest_difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    assert [a.shape for a in found] == [b.shape for b in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def test_they_are_those_of_fair_esm(checkpoint, records, expected):
    assert max(map(np.max, expected)) - min(map(np.min, expected)) > 0.3  # not all alike
    assert largest_difference(contacts_of(engine_of(checkpoint), records), expected) < 1e-4


def test_a_folder_of_hugging_face_has_the_same(folder, records, expected):
    assert largest_difference(contacts_of(engine_of(folder), records), expected) < 1e-4


@pytest.mark.parametrize("rung", [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32])
def test_weights_in_fp16_stay_close_at_each_rung(checkpoint, records, expected, rung):
    found = contacts_of(engine_of(checkpoint, Rung.FP16), records, rung=rung)
    assert largest_difference(found, expected) < 0.01


def test_heads_computed_a_few_at_a_time_give_the_same(checkpoint, records, expected, monkeypatch):
    monkeypatch.setattr(contact_head, "MOST_AT_ONCE", 3 * 42**2)
    assert largest_difference(contacts_of(engine_of(checkpoint), records), expected) < 1e-4


def test_each_segment_of_a_pack_has_what_it_has_alone(checkpoint, records):
    engine = engine_of(checkpoint)
    alone = [contacts_of(engine, [record])[0] for record in records]
    assert largest_difference(contacts_of(engine, records), alone) < 1e-6


def test_vectors_are_those_of_a_pass_without_contacts(checkpoint, records):
    engine = engine_of(checkpoint)
    plain = engine.embed(records, OutputForm(max_residues=1022)).embeddings
    found = engine.embed(records, FORM).embeddings
    # Attention that is observed runs in the plain blocks.
    np.testing.assert_allclose(found.pooled["mean"], plain.pooled["mean"], rtol=0, atol=1e-5)


def test_float16_is_the_default_and_rounds_to_it(checkpoint, records, expected):
    form = OutputForm(include=("contacts",), max_residues=100)
    found = engine_of(checkpoint).embed(records, form).embeddings
    assert found.scores["contacts"].dtype == np.float16
    assert found.pairs_of(2, "contacts").shape == (100, 100)
    assert np.abs(found.pairs_of(1, "contacts") - expected[1]).max() < 5e-4


def test_a_head_that_sees_special_tokens_alone_adds_nothing():
    q, k = torch.zeros(6, 2, 4), torch.zeros(6, 2, 4)
    q[..., 0], k[0, :, 0] = 100, 100  # all attend to <cls>
    assert torch.equal(contact_head.contact_logits(q, k, torch.ones(2)), torch.zeros(4, 4))


def test_a_record_that_is_not_finite_is_left_out(checkpoint, records, monkeypatch):
    engine, add = engine_of(checkpoint), contact_head.ContactMaps.add

    def broken(maps, q, k):
        q = q.clone()
        q[SPECIAL_TOKENS + 1 + 5] = torch.nan  # of the second record
        add(maps, q, k)

    monkeypatch.setattr(contact_head.ContactMaps, "add", broken)
    outcome = engine.embed(records[:2], FORM)
    assert [bad.row for bad in outcome.unstable] == [1]
    assert outcome.embeddings.rows.tolist() == [0]
    assert len(outcome.embeddings.scores["contacts"]) == 1


def test_random_weights_have_a_random_head(records):
    found = contacts_of(engine_of("random:esm2_t6_8M_UR50D"), records[:2])
    assert np.isfinite(found[1]).all()
    assert found[1].std() > 1e-4
    np.testing.assert_allclose(found[1], found[1].T, atol=1e-6)


def test_an_embedder_gives_them_by_id_in_float32(checkpoint, oracle):
    proteins = {"P1": "MKTAYIAKQR", "P2": "MVLSPADKTNVKAAW"}
    with Embedder(checkpoint, device="cpu") as embedder:
        found = embedder.embed(proteins, include=("mean", "contacts"))
        assert found.contacts("P1").dtype == np.float32
        with torch.inference_mode():
            right = oracle.predict_contacts(tokenize([proteins["P2"]]))[0]
        np.testing.assert_allclose(found.contacts("P2"), right, atol=1e-4)
        with pytest.raises(UserError, match="give long='truncate'"):
            embedder.embed(["MKV"], include="contacts", long="window")
        with pytest.raises(UserError, match="no contacts: add"):
            embedder.embed(["MKV"]).contacts(0)


def test_dnabert_s_has_no_contacts():
    with (
        Embedder("random:dnabert_s", device="cpu") as embedder,
        pytest.raises(UserError, match="DNABERT-S has no contact head"),
    ):
        embedder.embed(["ACGTACGT"], include="contacts", long="truncate")


def test_a_checkpoint_without_a_head_is_refused(oracle, folder, records, tmp_path):
    bare = save_fair_esm(oracle, tmp_path / "bare.pt")
    with pytest.raises(UserError, match=r"no contact head .*Put bare-contact-regression\.pt"):
        engine_of(bare).embed(records, FORM)
    whole = load_file(folder / "model.safetensors")
    assert any("contact_head" in name for name in whole)
    headless = {name: tensor for name, tensor in whole.items() if "contact_head" not in name}
    (tmp_path / "folder").mkdir()
    save_file(headless, tmp_path / "folder" / "model.safetensors")
    (tmp_path / "folder" / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match="no contact head"):
        engine_of(tmp_path / "folder").embed(records, FORM)


def test_a_head_of_another_shape_is_refused(oracle, records, tmp_path):
    path = save_fair_esm(oracle, tmp_path / "bare.pt")
    head = {"contact_head.regression.weight": torch.ones(1, 5)}
    head["contact_head.regression.bias"] = torch.ones(1)
    torch.save({"model": head}, tmp_path / "bare-contact-regression.pt")
    with pytest.raises(UserError, match=r"\(1, 5\) instead of \(1, 12\)"):
        engine_of(path).embed(records, FORM)
