"""The classifier in NumPy, against the module in torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from producer.virnucpro import classifier as classifier_module
from producer.virnucpro.classifier import Classifier
from tests.support.virnucpro import MLPClassifier, trained_module


def of_module(module: MLPClassifier) -> Classifier:
    return Classifier.of_state({k: v.numpy() for k, v in module.state_dict().items()}, "x.pth")


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0])
def test_scores_are_those_of_the_module_in_torch(scale):
    module = trained_module(features=3328, hidden=512)
    features = scale * torch.randn(3000, 3328, generator=torch.manual_seed(1))
    with torch.no_grad():
        expected = torch.softmax(module(features), dim=1).numpy()
    found = of_module(module).scores(features.numpy())
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-6
    assert 0 < (expected[:, 1] > 0.5).mean() < 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 9))
def test_scores_do_not_depend_on_the_size_of_blocks(rows, width, hidden):
    module = trained_module(features=width, hidden=hidden)
    features = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    whole = of_module(module).scores(features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_module, "BLOCK_BYTES", 1)
        np.testing.assert_allclose(of_module(module).scores(features), whole, atol=1e-6)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-6)


def test_a_frame_without_an_embedding_has_no_score_and_changes_no_other():
    found = of_module(trained_module(features=8, hidden=4))
    features = np.ones((3, 8), np.float32)
    features[1, 2] = np.nan
    scores = found.scores(features)
    assert np.isnan(scores[1]).all()
    np.testing.assert_array_equal(scores[0], scores[2])


def test_the_fingerprint_is_of_the_numbers_alone():
    module = trained_module(features=8, hidden=4)
    one, other = of_module(module), of_module(module)
    assert one.fingerprint == other.fingerprint
    with torch.no_grad():
        module.bn1.running_mean[0] += 1e-6
    assert of_module(module).fingerprint != one.fingerprint


def state() -> dict[str, np.ndarray]:
    module = trained_module(features=8, hidden=4)
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hidden_layer.weight", lambda a: a[:3], "hidden_layer.bias has the shape [4]"),
        ("output_layer.weight", lambda a: np.zeros((3, 4)), "2 classes"),
        ("bn1.weight", lambda a: a[:, None], "bn1.weight has the shape [4, 1]"),
        ("hidden_layer.bias", lambda a: a * np.nan, "hidden_layer.bias contains NaN or Inf"),
        ("bn1.running_var", lambda a: -a, "a negative variance"),
        ("output_layer.bias", lambda a: a * 1e300, "output_layer.bias contains NaN or Inf"),
    ],
)
def test_numbers_that_are_no_classifier_are_refused_by_their_name(name, change, message):
    changed = state()
    with np.errstate(over="ignore"):
        changed[name] = change(changed[name].astype(np.float64))
    with pytest.raises(UserError) as caught:
        Classifier.of_state(changed, "x.pth")
    assert message in str(caught.value)
    assert str(caught.value).startswith("x.pth")


def test_a_state_of_another_model_is_said_to_be_none():
    with pytest.raises(UserError, match=r"x\.pth is no classifier of VirNucPro: it has no hidden"):
        Classifier.of_state({"encoder.weight": np.zeros(3)}, "x.pth")
