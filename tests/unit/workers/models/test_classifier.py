"""Classification heads: transformers is the oracle, on small random models."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    EsmForMaskedLM,
    EsmForSequenceClassification,
    EsmForTokenClassification,
    PreTrainedModel,
)

from common.errors import UserError
from common.job.output_form import Include, OutputForm
from common.job.records import Record
from common.rungs import Rung
from tests.support.adapters import PROTEINS, adapted, hidden_of, logits_of, save_adapter, save_model
from workers.embedder import Embedder
from workers.engine.attributes import model_attributes
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model

RECORDS = [Record(row, f"P{row}", protein) for row, protein in enumerate(PROTEINS)]
OF: dict[str, type[PreTrainedModel]] = {
    "class_logits": EsmForSequenceClassification,
    "residue_class_logits": EsmForTokenClassification,
}
LABELS = {0: "soluble", 1: "membrane", 2: "other"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A folder of each class, by the name of its logits."""
    base = tmp_path_factory.mktemp("classes")
    return {
        name: save_model(
            base / name, of, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}
        )
        for name, of in OF.items()
    }


def form(name: str, classes: int = 3, *others: Include) -> OutputForm:
    return OutputForm(include=(*others, name), classes=classes, max_residues=1022)


def expected(model: Any, name: str) -> np.ndarray[Any, Any]:
    """Return the logits of all proteins, without those of special tokens."""
    found = [logits_of(model, protein) for protein in PROTEINS]
    rows = torch.stack(found) if name == "class_logits" else torch.cat([x[1:-1] for x in found])
    return rows.numpy()


def engine_of(folder: Path, precision: Rung = Rung.FP32) -> Engine:
    engine = Engine(load_model(folder, dtype=DTYPES[precision]))
    engine.pack_tokens = dict.fromkeys(engine.models, 64)  # several packs
    return engine


@pytest.mark.parametrize("name", OF)
def test_logits_and_vectors_are_those_of_transformers(folders, name):
    oracle = OF[name].from_pretrained(folders[name]).eval()
    found = engine_of(folders[name]).embed(RECORDS, form(name, 3, "mean")).embeddings
    assert found.scores.keys() == {name}
    assert found.scores[name].dtype == np.float32
    assert np.ptp(expected(oracle, name)) > 0.5
    np.testing.assert_allclose(found.scores[name], expected(oracle, name), atol=2e-5)
    means = torch.stack([hidden_of(oracle, protein)[1:-1].mean(0) for protein in PROTEINS])
    np.testing.assert_allclose(found.pooled["mean"], means, atol=1e-5)


@pytest.mark.parametrize("name", OF)
@pytest.mark.parametrize("rung", [Rung.FP16, Rung.SELECTIVE_FP32, Rung.FP32])
def test_each_rung_of_an_fp16_model_gives_nearly_the_same_logits(folders, name, rung):
    oracle = OF[name].from_pretrained(folders[name]).eval()
    found = engine_of(folders[name], Rung.FP16).embed(RECORDS, form(name), rung=rung)
    np.testing.assert_allclose(found.embeddings.scores[name], expected(oracle, name), atol=0.05)


@pytest.mark.parametrize("name", OF)
@pytest.mark.parametrize("settings", [{}, {"use_dora": True, "bias": "all"}], ids=["lora", "dora"])
def test_an_adapter_with_a_classifier_has_its_head(tmp_path, name, settings):
    """The base is a masked language model, whose folder knows of no classes."""
    base = save_model(tmp_path / "base")
    kind = "SEQ_CLS" if name == "class_logits" else "TOKEN_CLS"
    with_head = tmp_path / "with head"
    model = OF[name].from_pretrained(base, num_labels=5)
    model.save_pretrained(with_head)
    folder = save_adapter(
        tmp_path / "adapter",
        with_head,
        OF[name],
        task_type=kind,
        target_modules=["query"],
        **settings,
    )
    oracle = adapted(folder, with_head, OF[name])
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    engine = engine_of(folder)
    found = engine.embed(RECORDS, form(name, 5)).embeddings.scores[name]
    np.testing.assert_allclose(found, expected(oracle, name), atol=2e-5)
    attributes = model_attributes(engine.loaded, form(name, 5))
    assert attributes["class_labels"] == [f"LABEL_{k}" for k in range(5)]
    assert attributes["base_model"] == str(base)


def test_an_adapter_without_a_classifier_has_the_head_of_its_base(folders, tmp_path):
    base = folders["class_logits"]
    of = EsmForSequenceClassification
    folder = save_adapter(tmp_path / "adapter", base, of, target_modules=["value", "out_proj"])
    engine = engine_of(folder)
    found = engine.embed(RECORDS, form("class_logits")).embeddings.scores["class_logits"]
    oracle = adapted(folder, base, of)
    np.testing.assert_allclose(found, expected(oracle, "class_logits"), atol=2e-5)
    assert np.abs(found - expected(of.from_pretrained(base).eval(), "class_logits")).max() > 0.05


def test_the_attributes_name_the_classes_and_the_head(folders, tmp_path):
    loaded = load_model(folders["class_logits"], dtype=torch.float32)
    found = model_attributes(loaded, form("class_logits"))
    assert found["class_labels"] == list(LABELS.values())
    assert "problem_type" not in found
    assert "class_labels" not in model_attributes(loaded, OutputForm(max_residues=9))
    other = tmp_path / "other"
    model = EsmForSequenceClassification.from_pretrained(folders["class_logits"])
    with torch.no_grad():
        model.classifier.out_proj.bias += 1
    model.config.problem_type = "multi_label_classification"
    model.save_pretrained(other)
    other_loaded = load_model(other, dtype=torch.float32)
    theirs = model_attributes(other_loaded, form("class_logits"))
    assert theirs["problem_type"] == "multi_label_classification"
    assert theirs["weights"] == found["weights"]  # of the encoder, as in earlier versions
    assert theirs["class_head"] != found["class_head"]


def test_a_head_does_not_change_the_fingerprint_of_the_encoder(folders, tmp_path):
    model = EsmForSequenceClassification.from_pretrained(folders["class_logits"])
    model.esm.save_pretrained(tmp_path)
    bare, whole = (
        load_model(folder, dtype=torch.float32) for folder in (tmp_path, folders["class_logits"])
    )
    assert bare.fingerprint == whole.fingerprint


def test_the_embedder_gives_logits_by_id(folders):
    sequences = dict(zip("abc", PROTEINS, strict=True))
    with Embedder(folders["class_logits"], device="cpu", precision="fp32") as embedder:
        found = embedder.embed(sequences, include=("mean", "class_logits"))
    oracle = EsmForSequenceClassification.from_pretrained(folders["class_logits"]).eval()
    np.testing.assert_allclose(found.class_logits, expected(oracle, "class_logits"), atol=2e-5)
    with Embedder(folders["residue_class_logits"], device="cpu", precision="fp32") as embedder:
        found = embedder.embed(sequences, include="class_logits")
        with pytest.raises(UserError, match="Residues of windows"):
            embedder.embed(sequences, include="class_logits", long="window")
    assert found.residue_class_logits("c").shape == (len(PROTEINS[2]), 3)
    with pytest.raises(UserError, match="no class_logits: add it to include"):
        _ = found.class_logits
    assert list(found.attributes["class_labels"]) == list(LABELS.values())


def test_windows_and_models_without_a_head_are_refused_in_a_sentence(folders, tmp_path):
    with Embedder(folders["class_logits"], device="cpu", precision="fp32") as embedder:
        with pytest.raises(UserError, match="cannot be combined with windows"):
            embedder.embed(["MKT"], include="class_logits", long="window")
        with pytest.raises(UserError, match=r"are of whole sequences\. Give class_logits"):
            embedder.embed(["MKT"], include="residue_class_logits")
    save_model(tmp_path, EsmForMaskedLM)
    with (
        Embedder(tmp_path, device="cpu", precision="fp32") as embedder,
        pytest.raises(UserError, match="has no classification head"),
    ):
        embedder.embed(["MKT"], include="class_logits")
    with pytest.raises(UserError, match="has no classification head"):
        Engine(load_model(tmp_path, dtype=torch.float32)).embed(RECORDS, form("class_logits"))


@pytest.mark.parametrize(("name", "classes"), [("class_logits", 2), ("residue_class_logits", 3)])
def test_a_job_that_was_submitted_for_another_head_fails_with_a_sentence(folders, name, classes):
    with pytest.raises(UserError, match=r"its head gives class_logits of 3 labels, and .*asked"):
        engine_of(folders["class_logits"]).embed(RECORDS, form(name, classes))


def test_a_head_unlike_its_configuration_is_refused_only_if_it_is_asked_for(folders, tmp_path):
    model = EsmForSequenceClassification.from_pretrained(folders["class_logits"])
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    engine = engine_of(tmp_path)
    assert not engine.embed(RECORDS, OutputForm(max_residues=1022)).unstable
    with pytest.raises(UserError, match=r"out_proj.weight of the classifier is .*\(3, 64\).*2 lab"):
        engine.embed(RECORDS, form("class_logits", 2))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["classifier.out_proj.weight"] = torch.full((2, 64), torch.nan)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="contains NaN or Inf"):
        engine_of(tmp_path).embed(RECORDS, form("class_logits", 2))


@pytest.mark.parametrize("name", OF)
def test_rows_whose_logits_are_not_finite_are_left_out(folders, name):
    """The bias is finite, and what is added to it is beyond FP32."""
    engine = engine_of(folders[name])
    module = engine._classifier.get(name, 3)
    assert module is not None
    module.out_proj.weight.mul_(1e38)
    module.out_proj.bias.fill_(3e38)
    outcome = engine.embed(RECORDS, form(name, 3, "mean"))
    assert outcome.unstable
    assert len(outcome.embeddings) + len(outcome.unstable) == len(RECORDS)
    assert np.isfinite(outcome.embeddings.scores[name]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not engine.embed(RECORDS, OutputForm(max_residues=1022)).unstable
