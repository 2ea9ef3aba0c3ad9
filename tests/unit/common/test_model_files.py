"""The files of a model: which are taken, and what is refused by name."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from common.errors import UserError
from common.model_files import chosen, model_files, weight_files
from common.model_source import ModelSource
from tests.support.adapter_config import write_adapter


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"\x08weights")


def write_index(folder: Path, name: str, **tensors: str) -> None:
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": tensors}))


def taken(folder: Path) -> list[str]:
    return [file.name for file in weight_files(folder)]


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        model_files(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("others", "name"),
    [
        (["a.safetensors", "model.fp16.safetensors", "optimizer.bin"], "model.safetensors"),
        (["pytorch_model.bin", "consolidated.safetensors"], "model.safetensors"),
        (["model-00001-of-00001.safetensors"], "model.safetensors"),
        (["pytorch_model.fp16.bin", "training_args.bin", "old.safetensors"], "pytorch_model.bin"),
    ],
)
def test_the_names_of_transformers_are_taken_and_no_others(folder, others, name):
    add(folder, name, *others)
    assert taken(folder) == [name]


@pytest.mark.parametrize(
    "names",
    [
        ["first.safetensors"],
        ["first.safetensors", "second.safetensors"],
        ["model.fp16.safetensors"],
        ["consolidated.safetensors"],
        ["pytorch_model.fp16.bin"],
        ["model.bin"],
        ["esm2.pt", "other.pt"],
        ["last.ckpt"],
    ],
)
def test_other_names_are_refused_and_listed(folder, names):
    add(folder, *names)
    message = refusal(folder)
    assert "no weights under a name that transformers loads" in message
    assert f"It has: {', '.join(sorted(['config.json', *names]))}." in message


def test_the_files_of_an_index_are_taken_with_the_tensors_that_it_lists(folder):
    add(folder, "one.safetensors", "two.safetensors", "old.safetensors")
    write_index(folder, "model.safetensors", a="one.safetensors", b="two.safetensors")
    found = {file.name: tensors for file, tensors in weight_files(folder).items()}
    assert found == {"one.safetensors": {"a"}, "two.safetensors": {"b"}}


@pytest.mark.parametrize("name", ["two.safetensors", "../two.safetensors"])
def test_a_file_of_the_index_that_is_missing_is_named(folder, name):
    add(folder, "one.safetensors")
    (folder.parent / "elsewhere.safetensors").touch()
    write_index(folder, "model.safetensors", a="one.safetensors", b=name)
    assert "lists two.safetensors, which is missing" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_named(folder, text):
    add(folder, "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json: not a readable index" in refusal(folder)


@pytest.mark.parametrize("stem", ["model-{}.safetensors", "pytorch_model-{}.bin"])
def test_numbered_parts_need_no_index_if_all_are_there(folder, stem):
    names = [stem.format(f"0000{k}-of-00002") for k in (1, 2)]
    add(folder, *names)
    assert taken(folder) == names
    (folder / names[1]).unlink()
    assert "not one whole set" in refusal(folder)


def test_parts_of_two_sets_are_refused(folder):
    add(folder, "model-00001-of-00001.safetensors", "model-00001-of-00002.safetensors")
    assert "not one whole set" in refusal(folder)


def test_a_whole_model_with_the_configuration_of_an_adapter_is_refused_with_what_to_do(folder):
    write_adapter(folder, base_model_name_or_path="esm2_t6_8M_UR50D")
    add(folder, "model.safetensors")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors, are missing\. If the folder"):
        model_files(folder)


def test_the_files_of_an_adapter_are_its_own_and_those_of_a_base_in_a_folder(tmp_path):
    base, adapter = tmp_path / "base_model", tmp_path / "adapter"
    write_adapter(adapter, base_model_name_or_path=str(base))
    add(adapter, "adapter_model.safetensors")
    assert model_files(adapter) == []  # workers may see the base
    base.mkdir()
    add(base, "config.json", "model.safetensors")
    own = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    assert model_files(adapter) == [*own, base / "config.json", base / "model.safetensors"]
    write_adapter(adapter, base_model_name_or_path="facebook/esm2_t6_8M_UR50D")
    assert model_files(adapter) == own


def test_a_folder_of_checkpoints_is_refused_and_listed(tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    assert "no config.json, which tells the model's shape. It has: checkpoint-500/." in refusal(
        tmp_path
    )


def test_a_long_list_is_cut(tmp_path):
    add(tmp_path, *(f"{k:02}.txt" for k in range(20)))
    assert refusal(tmp_path).endswith("10.txt, 11.txt and 8 more.")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "pytorch_model.bin"])
def test_a_single_file_of_a_folder_is_refused_with_the_folder(folder, name):
    add(folder, name)
    assert f"is a single file. Name its folder {folder}" in refusal(folder / name)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error>', "an answer of a web server"),
        (b"", "empty"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "a.pt"])
def test_what_a_download_left_in_place_of_a_file_is_named(folder, name, content, what):
    add(folder, "model.safetensors")
    (folder / name).write_bytes(content)
    path = folder / name if name.endswith(".pt") else folder
    assert f"{folder / name} is {what}" in refusal(path)


def test_the_files_of_a_model_are_what_it_is_loaded_from(folder):
    add(folder, "model.safetensors", "README.md", "vocab.txt")
    assert [file.name for file in model_files(folder)] == ["config.json", "model.safetensors"]
    add(folder, "tokenizer.json")
    assert [file.name for file in model_files(folder)][2:] == ["tokenizer.json"]
    add(folder, "one.pt")
    assert model_files(folder / "one.pt") == [folder / "one.pt"]


@pytest.mark.parametrize("text", ["/" + 300 * "a", "/a/\0", "/" + 5000 * "a/"])
def test_a_path_that_cannot_be_is_an_error_of_the_user_or_nothing(text):
    with suppress(UserError):
        source = ModelSource.parse(text)
        assert source.spec() is None
        assert source.files() == []


def test_a_folder_that_only_the_workers_may_read_is_theirs(folder, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # the tests' user may read everything
    assert model_files(folder) == []


def test_nothing_is_known_of_what_only_workers_have(folder, tmp_path):
    assert model_files(tmp_path / "nowhere") == []
    assert model_files(folder) == []  # the configuration alone
    (tmp_path / "empty").mkdir()
    assert model_files(tmp_path / "empty") == []


# --- the files of a copy -------------------------------------------------------------------------

PARTS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("weights", "left"),
    [
        (["model.safetensors"], ["pytorch_model.bin", "tf_model.h5", "README.md"]),
        (["model.safetensors.index.json", *PARTS], ["pytorch_model.bin"]),
        (PARTS, ["flax_model.msgpack"]),
        (["pytorch_model.bin"], ["training_args.bin", "optimizer.pt"]),
    ],
    ids=["one file", "an index", "parts", "pickled"],
)
def test_one_set_of_weights_is_taken_with_what_belongs_to_it(weights, left):
    beside = ["config.json", "tokenizer.json", "vocab.txt"]
    assert chosen([*weights, *beside, *left], "here") == sorted([*weights, *beside])


def test_an_adapter_in_a_bucket_is_refused_with_what_to_do():
    with pytest.raises(UserError, match=r"s3://b/x: .* not served from a bucket.*merge_and_unload"):
        chosen(["adapter_config.json", "adapter_model.safetensors"], "s3://b/x")


@pytest.mark.parametrize(
    ("names", "missing"),
    [([], "model.safetensors"), (["config.json"], "model.safetensors"), (PARTS, "config.json")],
    ids=["nothing", "no weights", "no shape"],
)
def test_what_is_no_model_is_refused_with_what_is_there(names, missing):
    with pytest.raises(UserError, match=f"s3://b/x: no {missing}") as caught:
        chosen(names, "s3://b/x")
    assert str(caught.value).endswith(f"It has: {', '.join(sorted(names)) or 'nothing'}.")
