"""Files of a model may be anything: they are loaded, or one error names the file or its folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers import models as models_of_library

from common.errors import UserError
from common.model_digest import model_digest
from common.model_source import ModelSource
from common.model_specs import ModelSpec
from tests.fuzz.fuzzing import EDITS, changed, edited, fuzz
from tests.support.dnabert import random_checkpoint, save_checkpoint, small_spec
from tests.support.fair_esm import random_fair_esm, save_fair_esm
from tests.support.hugging_face import to_hugging_face
from workers.models.dnabert_s.tokenizer import SPECIALS
from workers.models.loading import load_model

TINY = ModelSpec(name="esm2_tiny", layers=1, dim=16, heads=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    esm2 = random_fair_esm(TINY)
    to_hugging_face(esm2).save_pretrained(folder / "esm2")
    spec = small_spec(heads=2, dim=8, layers=1)
    save_checkpoint(spec, random_checkpoint(spec), folder / "dnabert")
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *"ACGT", "AC"])}
    small = models_of_library.BPE(vocab=vocabulary, merges=[("A", "C")], unk_token=SPECIALS[0])
    Tokenizer(small).save(str(folder / "dnabert" / "tokenizer.json"))
    save_fair_esm(esm2, folder / "esm2_tiny.pt")
    return {name: folder / name for name in ("esm2", "dnabert", "esm2_tiny.pt")}


def is_loaded_or_refused(model: Path) -> None:
    """Load a model as a worker does, with its digest as a producer computes it."""
    for read in (
        lambda: model_digest(ModelSource.parse(str(model)).files()),
        lambda: load_model(str(model), dtype=torch.float32),
    ):
        error = refusal_of(read)
        assert error is None or str(model) in error


def refusal_of(read: Callable[[], object]) -> str | None:
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def copy_of(model: Path, tmp_path: Path) -> Path:
    copy = tmp_path / model.name
    if model.is_file():
        shutil.copyfile(model, copy)
    else:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(model, copy)
    return copy


@fuzz(slower=2)
@given(data=st.data(), name=st.sampled_from(["esm2", "dnabert"]))
def test_a_configuration_of_other_values_is_loaded_or_refused(data, name, models, tmp_path):
    model = copy_of(models[name], tmp_path)
    content = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(data.draw(changed(content))))
    is_loaded_or_refused(model)


@fuzz(slower=4)
@given(data=st.data())
def test_a_tokenizer_of_other_values_is_loaded_or_refused(data, models, tmp_path):
    model = copy_of(models["dnabert"], tmp_path)
    content = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(data.draw(changed(content))))
    is_loaded_or_refused(model)


@fuzz(slower=2)
@given(
    edits=EDITS,
    file=st.sampled_from(
        [
            *("esm2/config.json", "esm2/model.safetensors", "dnabert/config.json"),
            *("dnabert/model.safetensors", "dnabert/tokenizer.json", "esm2_tiny.pt/"),
        ]
    ),
    at_the_start=st.booleans(),
)
def test_a_damaged_file_of_a_model_is_loaded_or_refused(
    edits, file, at_the_start, models, tmp_path
):
    name, _, inside = file.partition("/")
    model = copy_of(models[name], tmp_path)
    path = model / inside
    if at_the_start:  # the header of the file
        edits = [(place / 50, deleted, inserted) for place, deleted, inserted in edits]
    path.write_bytes(edited(path.read_bytes(), edits))
    is_loaded_or_refused(model)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_deep_nesting_is_refused(opening, file, models, tmp_path):
    model = copy_of(models["dnabert"], tmp_path)
    (model / file).write_text(opening * 100_000)
    with pytest.raises(UserError, match=file):
        load_model(str(model), dtype=torch.float32)
