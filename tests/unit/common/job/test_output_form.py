"""The output form: what is written into manifests and fingerprints."""

import json

import pytest
from pydantic import ValidationError

from common.job.output_form import OutputForm


def test_what_is_written_is_as_in_earlier_versions_unless_classes_are_used():
    plain = OutputForm(max_residues=1022)
    expected = {
        "include": ["mean"],
        "layers": [-1],
        "residue_dtype": "float16",
        "max_residues": 1022,
        "overlap": None,
    }
    assert json.loads(plain.model_dump_json()) == expected
    assert list(plain.model_dump()) == list(expected)
    with_classes = OutputForm(include=("class_logits",), classes=3, max_residues=1022)
    assert with_classes.model_dump()["classes"] == 3
    assert OutputForm.model_validate_json(with_classes.model_dump_json()) == with_classes


def test_the_shape_of_class_logits_is_that_of_the_model():
    form = OutputForm(include=("mean", "class_logits", "logits"), classes=7, max_residues=9)
    assert (form.score_shape("class_logits"), form.score_shape("logits")) == ((7,), (33,))
    assert (form.scores, form.lm_scores) == (("class_logits", "logits"), ("logits",))
    assert form.has_residues
    assert not OutputForm(include=("class_logits",), classes=7, max_residues=9).has_residues
    assert OutputForm(include=("residue_class_logits",), classes=7, max_residues=9).has_residues


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("class_logits",)}, "need the number of classes"),
        ({"include": ("class_logits",), "classes": 0}, "greater than 0"),
        ({"include": ("class_logits",), "classes": 2, "overlap": 1}, "cannot be combined with win"),
        ({"include": ("residue_class_logits",), "classes": 2, "overlap": 1}, "cannot be combined"),
    ],
)
def test_class_logits_need_classes_and_no_windows(options, message):
    with pytest.raises(ValidationError, match=message):
        OutputForm(max_residues=9, **options)
