"""The network's gradients and scores are PyTorch's."""

import numpy as np
import pytest
import torch
from torch import nn

from producer.virnucpro.network import (
    TRAINED,
    Network,
    backward,
    cross_entropy,
    dropout_factors,
    probabilities,
)

#: The arrays of a network by the names of the module below.
MODULE_NAMES = {
    "hidden_weight": "hidden_layer.weight",
    "hidden_bias": "hidden_layer.bias",
    "norm_weight": "bn1.weight",
    "norm_bias": "bn1.bias",
    "running_mean": "bn1.running_mean",
    "running_var": "bn1.running_var",
    "output_weight": "output_layer.weight",
    "output_bias": "output_layer.bias",
}


class Module(nn.Module):
    """VirNucPro's network, with factors in place of random dropout."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(width, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.output_layer = nn.Linear(hidden, 2)

    def forward(self, x: torch.Tensor, dropout: torch.Tensor | float = 1.0) -> torch.Tensor:
        return self.output_layer(torch.relu(self.bn1(self.hidden_layer(x))) * dropout)


def random_network(width: int, hidden: int, dtype: type = np.float64) -> Network:
    draw = np.random.default_rng(5)
    network = Network.initial(width, hidden, draw)
    arrays = {name: array + 0.3 * draw.random(array.shape) for name, array in vars(network).items()}
    return Network(**{name: array.astype(dtype) for name, array in arrays.items()})


def as_module(network: Network) -> Module:
    hidden, width = network.hidden_weight.shape
    module = Module(width, hidden).to(torch.from_numpy(network.hidden_weight).dtype)
    state = {MODULE_NAMES[k]: torch.from_numpy(a.copy()) for k, a in vars(network).items()}
    module.load_state_dict(state | {"bn1.num_batches_tracked": torch.tensor(0)})
    return module


@pytest.mark.parametrize("with_dropout", [False, True])
@pytest.mark.parametrize(("rows", "width", "hidden"), [(2, 3, 4), (33, 20, 7), (64, 5, 40)])
def test_gradients_are_those_of_autograd(rows, width, hidden, with_dropout):
    draw = np.random.default_rng(1)
    network = random_network(width, hidden)
    features = draw.normal(size=(rows, width)) * 3 + 1
    labels, weights = draw.integers(0, 2, rows), draw.random(rows) * 2
    dropout = None
    if with_dropout:
        dropout = dropout_factors(draw, (rows, hidden), 0.5).astype(np.float64)
    found = backward(network, features, labels, weights, dropout)

    module = as_module(network)
    factors = 1.0 if dropout is None else torch.from_numpy(dropout)
    logits = module(torch.from_numpy(features), factors)
    losses = nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    loss = (losses * torch.from_numpy(weights)).mean()
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    parameters = dict(module.named_parameters())
    assert set(found.gradients) == set(TRAINED)
    for name, gradient in found.gradients.items():
        expected = parameters[MODULE_NAMES[name]].grad.numpy()
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-13, err_msg=name)
    # The one that is left out: it has no effect, since batch normalisation subtracts it.
    assert np.abs(parameters["hidden_layer.bias"].grad.numpy()).max() < 1e-12


def test_gradients_are_those_of_finite_differences():
    draw = np.random.default_rng(2)
    network = random_network(4, 3)
    batch = (draw.normal(size=(9, 4)), draw.integers(0, 2, 9), draw.random(9), None)
    gradients = backward(network, *batch).gradients
    for name in TRAINED:
        array = getattr(network, name)
        for place in np.ndindex(array.shape):
            kept, losses = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = kept + step
                losses.append(backward(network, *batch).loss)
            array[place] = kept
            slope = (losses[0] - losses[1]) / 2e-6
            assert gradients[name][place] == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_running_statistics_are_those_of_batch_normalisation():
    network = random_network(6, 5)
    module = as_module(network)
    draw = np.random.default_rng(3)
    for rows in (2, 10, 7):
        features = draw.normal(size=(rows, 6))
        found = backward(network, features, np.zeros(rows, int), np.ones(rows), None)
        network.update_running(found.mean, found.variance, rows)
        module(torch.from_numpy(features))
    np.testing.assert_allclose(network.running_mean, module.bn1.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(network.running_var, module.bn1.running_var.numpy(), rtol=1e-12)


def test_logits_are_those_of_the_module_in_eval_mode():
    network = random_network(30, 16, np.float32)
    features = np.random.default_rng(4).normal(size=(500, 30)).astype(np.float32) * 4
    with torch.no_grad():
        expected = as_module(network).eval()(torch.from_numpy(features)).numpy()
    found = network.logits(features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_float32_network_has_float32_gradients():
    network = random_network(5, 4, np.float32)
    features = np.random.default_rng(6).normal(size=(8, 5)).astype(np.float32)
    found = backward(network, features, np.arange(8) % 2, np.ones(8), None)
    assert {gradient.dtype for gradient in found.gradients.values()} == {np.dtype(np.float32)}


def test_first_weights_have_the_distributions_of_pytorch():
    network = Network.initial(400, 300, np.random.default_rng(0))
    linear = nn.Linear(400, 300)
    for found, expected in (
        (network.hidden_weight, linear.weight.detach().numpy()),
        (network.output_weight, nn.Linear(300, 2).weight.detach().numpy()),
    ):
        assert np.abs(found).max() <= found.shape[1] ** -0.5
        assert found.std() == pytest.approx(expected.std(), rel=0.1)
        assert found.mean() == pytest.approx(0, abs=0.1 * float(found.std()))


def test_large_logits_give_neither_nan_nor_inf():
    logits = np.array([[1000.0, -1000.0], [-1000.0, 1000.0], [3e38, 3e38]], np.float32)
    np.testing.assert_allclose(probabilities(logits), [[1, 0], [0, 1], [0.5, 0.5]])
    losses = cross_entropy(logits, np.array([1, 1, 0]))
    np.testing.assert_allclose(losses, [2000, 0, np.log(2)])


def test_dropout_keeps_the_mean():
    factors = dropout_factors(np.random.default_rng(0), (1000, 1000), 0.5)
    assert set(np.unique(factors)) == {0.0, 2.0}
    # A million draws of variance 1: five standard errors are 0.005.
    assert factors.mean() == pytest.approx(1, abs=0.005)


def test_a_copy_is_not_changed_by_training():
    network = random_network(3, 2)
    copy = network.copy()
    before = copy.running_mean.copy()
    network.update_running(np.full(2, 9.0), np.ones(2), 4)
    np.testing.assert_array_equal(copy.running_mean, before)
