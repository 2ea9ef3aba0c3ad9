"""Revisions: their form, and their part in the identity of a model."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.model_revision import check_revision, is_commit
from common.model_source import ModelSource, with_revision
from common.model_specs import MODELS
from common.rungs import Rung

NAME = "esm2_t6_8M_UR50D"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", COMMIT, "a", "release-2+x_y"])
def test_the_names_of_branches_tags_and_commits_are_revisions(revision):
    assert check_revision(revision) == revision


@pytest.mark.parametrize(
    "revision",
    [
        "",
        "-x",
        "a b",
        "a..b",
        "a//b",
        "/a",
        "a/",
        "a.lock",
        "a@b",
        "../x",
        "a/.b",
        "é",
        "x" * 101,
        "a\n",
    ],
)
def test_what_no_branch_or_tag_is_called_is_refused(revision):
    with pytest.raises(UserError, match="not the name of a branch or a tag"):
        check_revision(revision)
    with pytest.raises(UserError):
        ModelSource.parse(f"{NAME}@{revision}")


def test_a_commit_is_known_from_a_branch():
    assert is_commit(COMMIT)
    assert not is_commit("main")
    assert not is_commit(COMMIT[:12])


@pytest.mark.parametrize(
    "spelling",
    [f"{NAME}@v1", f"{NAME.upper()}@v1", f"facebook/{NAME}@v1", "Facebook/" + NAME + "@v1"],
)
def test_a_revision_is_a_part_of_the_model_s_text(spelling):
    source = ModelSource.parse(spelling)
    assert source.text == f"{NAME}@v1"
    assert (source.name, source.revision) == (NAME, "v1")
    assert source.spec() == MODELS[NAME]
    assert ModelSource.parse(source.text) == source


def test_the_option_says_the_same_as_the_text():
    assert ModelSource.parse(NAME, "v1") == ModelSource.parse(f"{NAME}@v1")
    assert ModelSource.parse(f"{NAME}@v1", "v1").text == f"{NAME}@v1"
    assert with_revision(f"facebook/{NAME}", "v1") == f"{NAME}@v1"
    assert with_revision(f"facebook/{NAME}", None) == f"facebook/{NAME}"


def test_a_name_without_a_revision_stays_as_it_was():
    source = ModelSource.parse(NAME)
    assert (source.text, source.queue, source.revision) == (NAME, NAME, None)


@pytest.mark.parametrize(
    "model", [f"random:{NAME}", "/models/x", "s3://bucket/x", f"{NAME}@v2"], ids=lambda model: model
)
def test_what_is_not_on_the_hub_has_no_revision(model):
    with pytest.raises(UserError, match="only a model on the Hugging Face hub has revisions"):
        ModelSource.parse(model, "v1")


def test_random_weights_have_no_revision():
    with pytest.raises(UserError, match="Unknown model"):
        ModelSource.parse(f"random:{NAME}@v1")


def test_a_path_with_an_at_sign_is_a_path():
    assert ModelSource.parse("/models/a@b").text == "/models/a@b"
    assert ModelSource.parse("/models/a@b").revision is None


revisions = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,30}", fullmatch=True)


@given(revisions, revisions, st.sampled_from(Rung), st.sampled_from(Rung))
def test_jobs_of_two_revisions_have_two_queues(one, other, rung, other_rung):
    def queue(revision: str, rung: Rung) -> str | None:
        try:
            source = ModelSource.parse(f"{NAME}@{revision}")
        except UserError:
            return None
        assert re.fullmatch(r"[\w.-]{1,60}", source.queue, re.ASCII)
        return f"{source.queue}.{rung}"

    if one != other:
        assert queue(one, rung) != queue(other, other_rung) or queue(one, rung) is None
    assert queue(one, rung) not in {f"{name}.{rung}" for name in MODELS}
