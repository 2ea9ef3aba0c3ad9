"""The parsing of ``--model``, and the names that follow from it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import Rung

NAME = "esm2_t6_8M_UR50D"
DNA_NAME = "dnabert_s"
ESM_NAMES = [name for name in MODELS if name.startswith("esm")]

#: Repositories that are not called as their model is here.
OTHER_HUBS = [
    ("zhihan1996/DNABERT-S", DNA_NAME),
    ("zhihan1996/DNABERT-2-117M", "dnabert_2"),
    ("biohub/ESMC-300M", "esmc_300m"),
    ("biohub/ESMC-600M", "esmc_600m"),
    ("biohub/ESMC-6B", "esmc_6b"),
]


@pytest.mark.parametrize("name", MODELS)
def test_a_name_of_the_table_is_a_model(name):
    assert ModelSource.parse(name) == ModelSource(name)
    assert ModelSource.parse(name).spec() == MODELS[name]


@pytest.mark.parametrize(
    ("hub", "name"),
    [*((f"facebook/{name}", name) for name in ESM_NAMES if "esmc" not in name), *OTHER_HUBS],
)
def test_a_model_s_name_on_the_hub_means_the_same(hub, name):
    assert ModelSource.parse(hub) == ModelSource(name)
    assert ModelSource.parse(f"random:{hub}") == ModelSource(f"random:{name}")


@pytest.mark.parametrize(
    ("spelling", "text"),
    [
        *((spell(name), name) for name in MODELS for spell in (str.upper, str.lower, str.title)),
        ("FACEBOOK/ESM2_T6_8M_UR50D", NAME),
        ("DNABERT-S", DNA_NAME),
        ("dnabert-s", DNA_NAME),
        ("Random:DNABERT-S", f"random:{DNA_NAME}"),
        ("random:ESM2_t6_8M_UR50D", f"random:{NAME}"),
    ],
)
def test_case_does_not_matter_nor_the_spelling_of_the_hub(spelling, text):
    source = ModelSource.parse(spelling)
    assert source == ModelSource(text)
    assert source.queue == ModelSource(text).queue


@given(st.sampled_from(sorted(MODELS)), st.data())
def test_any_case_of_a_name_is_that_name(name, data):
    upper = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    spelling = "".join(c.upper() if u else c.lower() for c, u in zip(name, upper, strict=True))
    assert ModelSource.parse(spelling).text == name


@given(st.text(max_size=60))
def test_any_text_is_a_model_in_its_normal_form_or_an_error_of_the_user(text):
    try:
        source = ModelSource.parse(text)
    except UserError:
        return
    assert ModelSource.parse(source.text) == source


@pytest.mark.parametrize("name", [f"facebook/{DNA_NAME}", "facebook/esm2", "random:DNABERT-3"])
def test_a_name_that_the_hub_does_not_have_is_unknown(name):
    with pytest.raises(UserError, match=re.escape(f"Unknown model {name!r}")):
        ModelSource.parse(name)


@pytest.mark.parametrize("name", [NAME, DNA_NAME])
def test_random_weights_have_the_shape_of_their_name(name):
    source = ModelSource.parse(f"random:{name}")
    assert source.text == f"random:{name}"
    assert (source.is_random, source.is_path) == (True, False)
    assert (source.name, source.spec()) == (name, MODELS[name])


@pytest.mark.parametrize(
    ("text", "below"),
    [
        ("weights", None),
        ("./weights", "weights"),
        ("some/../weights/", "weights"),
        ("model.pt", "model.pt"),
        ("../here/a.pt", "a.pt"),
        (".", ""),
    ],
)
def test_a_relative_path_means_the_same_wherever_it_is_read(tmp_path, monkeypatch, text, below):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "weights").mkdir()
    (tmp_path / "here" / "some").mkdir()
    for file in ("model.pt", "a.pt"):
        (tmp_path / "here" / file).touch()
    if below is None:
        with pytest.raises(UserError):
            ModelSource.parse(text)
        return
    source = ModelSource.parse(text)
    assert source.text == str(tmp_path / "here" / below)
    assert (source.is_path, source.is_random) == (True, False)


@pytest.mark.parametrize("text", ["./weights", "some/weights", "model.pt", Path("weights")])
def test_a_relative_path_that_does_not_exist_here_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="absolute"):
        ModelSource.parse(text)


def test_a_path_that_only_workers_can_see_is_absolute():
    assert ModelSource.parse("/only/on/workers").text == "/only/on/workers"


def test_a_folder_here_without_a_slash_is_refused_with_what_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    with pytest.raises(UserError, match=r"give \./weights\."):
        ModelSource.parse("weights")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("facebok/esm2_t33_650M_UR50D", "Did you mean esm2_t33_650M_UR50D?"),
        ("https://huggingface.co/facebook/esm2_t6_8M_UR50D", "Did you mean esm2_t6_8M_UR50D?"),
        ("esm2_t33_650M", "Did you mean esm2_t33_650M_UR50D?"),
        ("random:dnabert2", "Did you mean dnabert_2 or dnabert_s?"),
        ("Rostlab/prot_t5_xl_uniref50", "Only models of ESM-2, ESM-1b, ESM-1v"),
        ("gs://bucket/weights", "Only models of ESM-2, ESM-1b, ESM-1v"),
        ("file://host/weights", "Only models of ESM-2, ESM-1b, ESM-1v"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest_names(text, nearest):
    with pytest.raises(UserError) as caught:
        ModelSource.parse(text)
    assert str(caught.value).startswith(f"Unknown model {text!r}. {nearest}")


def test_an_unknown_home_is_refused():
    with pytest.raises(UserError, match="home folder"):
        ModelSource.parse("~nobody-of-this-name/a.pt")


def test_a_home_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert ModelSource.parse("~/a.pt").text == "/home/someone/a.pt"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/models/my-esm", "my-esm"), ("/models/esm2_x.pt", "esm2_x"), ("/models/c.pth", "c")],
)
def test_a_path_is_called_by_its_last_part(path, name):
    assert ModelSource.parse(path).name == name


@pytest.mark.parametrize("name", ["esm2", "random:esm2", "random:", "", "ESM2_T6_8M", "a.h5"])
def test_an_unknown_model_is_refused_with_those_that_are_known(name):
    with pytest.raises(UserError, match=re.escape(f"Unknown model {name!r}")) as caught:
        ModelSource.parse(name)
    assert all(f"\n  {known}" in str(caught.value) for known in MODELS)
    assert "random:NAME" in str(caught.value)
    assert ".pt file" in str(caught.value)


def test_queue_names_are_safe_and_different():
    texts = [
        *MODELS,
        *(f"random:{name}" for name in MODELS),
        f"/models/{NAME}",
        f"/models/{NAME}.pt",
        f"/other/{NAME}",
        "/with blank/é:*?[]{}",
    ]
    queues = [ModelSource.parse(text).queue for text in texts]
    assert len(set(queues)) == len(texts)
    assert all(re.fullmatch(r"[\w.-]{1,60}", queue, re.ASCII) for queue in queues)


def test_names_of_queues_with_their_rungs_are_different():
    queues = [ModelSource.parse(text).queue for text in (*MODELS, *(f"random:{m}" for m in MODELS))]
    assert len({f"{queue}.{rung}" for queue in queues for rung in Rung}) == len(queues) * len(Rung)


def test_the_first_files_of_esm_c_are_known_by_their_names(tmp_path):
    spec = ModelSource.parse(str(tmp_path / "esmc_600m_2024_12_v0.pth")).spec()
    assert spec == replace(MODELS["esmc_600m"], name="esmc_600m_2024_12_v0")
