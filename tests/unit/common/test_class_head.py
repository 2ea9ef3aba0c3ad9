"""The classes of a model, which a producer knows without PyTorch."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from common.adapters import read_adapter
from common.class_head import ClassHead, class_head_in, class_head_of, own_head
from common.errors import UserError
from common.model_source import ModelSource
from tests.support.adapter_config import write_adapter

SEQUENCE, TOKEN = "EsmForSequenceClassification", "EsmForTokenClassification"


def write_config(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "esm", **settings}))
    return folder


def write_header(file: Path, **shapes: list[int]) -> None:
    """Write the header of a safetensors file, which has no numbers."""
    header = json.dumps({"__metadata__": {}, **{name: {"shape": s} for name, s in shapes.items()}})
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode())


@pytest.mark.parametrize(
    ("settings", "head"),
    [
        ({"architectures": [SEQUENCE]}, ClassHead(False, ("LABEL_0", "LABEL_1"))),
        ({"architectures": [TOKEN], "num_labels": 1}, ClassHead(True, ("LABEL_0",))),
        (
            {"architectures": [SEQUENCE], "id2label": {"1": "b", "0": "a", "2": "c"}},
            ClassHead(False, ("a", "b", "c")),
        ),
        (
            {"architectures": [SEQUENCE], "id2label": {"0": "x"}, "problem_type": "regression"},
            ClassHead(False, ("x",), "regression"),
        ),
        ({"architectures": ["EsmForMaskedLM"]}, None),
        ({"architectures": None}, None),
        ({}, None),
    ],
)
def test_a_folder_s_head_is_that_of_its_configuration(tmp_path, settings, head):
    assert class_head_in(write_config(tmp_path / "m", **settings)) == head


@pytest.mark.parametrize(
    "settings",
    [
        {"id2label": {"1": "a", "2": "b"}},
        {"id2label": {"a": 0}},
        {"id2label": ["a", "b"]},
        {"id2label": {}},
        {"id2label": {str(k): "x" for k in range(4001)}},
        {"num_labels": "3"},
    ],
    ids=["from 1", "reversed", "a list", "none", "too many", "a text"],
)
def test_labels_that_cannot_be_used_are_refused(tmp_path, settings):
    folder = write_config(tmp_path / "m", architectures=[SEQUENCE], **settings)
    with pytest.raises(UserError, match=r"config\.json"):
        class_head_in(folder)


PREFIX = "base_model.model."


@pytest.mark.parametrize(
    ("name", "of_residues"),
    [
        (f"{PREFIX}classifier.out_proj.weight", False),
        (f"{PREFIX}classifier.weight", True),
        (f"{PREFIX}classifier.modules_to_save.default.out_proj.weight", False),
        (f"{PREFIX}classifier.modules_to_save.weight", True),
    ],
)
def test_an_adapter_s_own_classifier_tells_its_kind_and_classes(tmp_path, name, of_residues):
    folder = write_adapter(tmp_path / "a", base_model_name_or_path="esm2_t6_8M_UR50D")
    shapes = {name: [3, 320], f"{PREFIX}classifier.dense.weight": [320, 320]}
    write_header(folder / "adapter_model.safetensors", **shapes)
    assert own_head(read_adapter(folder)) == (of_residues, 3)
    labels = ("LABEL_0", "LABEL_1", "LABEL_2")
    assert class_head_in(folder) == ClassHead(of_residues, labels)
    write_config(folder, id2label={"0": "a", "1": "b", "2": "c"})
    assert class_head_in(folder) == ClassHead(of_residues, ("a", "b", "c"))
    write_config(folder, id2label={"0": "a", "1": "b"})  # of another number
    assert class_head_in(folder) == ClassHead(of_residues, labels)


def test_an_adapter_s_own_classifier_has_no_labels_of_another_task(tmp_path):
    labels = {"id2label": {"0": "soluble", "1": "not"}}
    encoder = write_config(tmp_path / "encoder", **labels)
    tuned = write_config(tmp_path / "tuned", architectures=[SEQUENCE], **labels)
    weight = {f"{PREFIX}classifier.out_proj.weight": [2, 320]}
    for base, expected in ((encoder, ("soluble", "not")), (tuned, ("LABEL_0", "LABEL_1"))):
        folder = write_adapter(tmp_path / f"of_{base.name}", base_model_name_or_path=str(base))
        write_header(folder / "adapter_model.safetensors", **weight)
        assert class_head_in(folder).labels == expected


def test_an_adapter_without_a_classifier_has_its_base_s_head(tmp_path):
    base = write_config(tmp_path / "base", architectures=[TOKEN], id2label={"0": "a", "1": "b"})
    folder = write_adapter(tmp_path / "a", base_model_name_or_path=str(base))
    write_header(folder / "adapter_model.safetensors", **{f"{PREFIX}esm.x.lora_A.weight": [8, 320]})
    assert class_head_in(folder) == ClassHead(True, ("a", "b"))
    named = write_adapter(tmp_path / "b", base_model_name_or_path="esm2_t6_8M_UR50D")
    write_header(named / "adapter_model.safetensors", **{f"{PREFIX}esm.x.lora_A.weight": [8, 320]})
    assert class_head_in(named) is None


def test_an_adapter_whose_file_cannot_be_read_without_pytorch_is_refused(tmp_path):
    folder = write_adapter(tmp_path / "a", base_model_name_or_path="esm2_t6_8M_UR50D")
    (folder / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(UserError, match="Save the adapter again with safetensors"):
        class_head_in(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        class_head_in(folder)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("esm2_t6_8M_UR50D", "has no classification head"),
        ("random:esm2_t6_8M_UR50D", "has no classification head"),
        ("/only/on/workers", "cannot be read on this machine, and only its files tell"),
    ],
)
def test_a_model_without_a_known_head_is_refused_with_what_to_do(model, message):
    with pytest.raises(UserError, match=message):
        class_head_of(ModelSource.parse(model))
