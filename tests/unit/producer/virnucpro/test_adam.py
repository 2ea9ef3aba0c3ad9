"""Adam is PyTorch's, step by step."""

import numpy as np
import pytest
import torch
from torch import nn

from producer.virnucpro import adam
from producer.virnucpro.adam import Adam
from producer.virnucpro.fitting import train_step
from producer.virnucpro.network import TRAINED
from tests.unit.producer.virnucpro.test_network import MODULE_NAMES, as_module, random_network


@pytest.mark.parametrize("block", [1, 7, 2**14])
def test_steps_are_those_of_pytorch(block, monkeypatch):
    monkeypatch.setattr(adam, "BLOCK", block)
    draw = np.random.default_rng(0)
    ours = draw.normal(size=(5, 6))
    theirs = torch.from_numpy(ours.copy()).requires_grad_()
    optimiser, reference = Adam({"w": ours}, 0.01), torch.optim.Adam([theirs], lr=0.01)
    for _ in range(30):
        gradient = draw.normal(size=(5, 6))
        theirs.grad = torch.from_numpy(gradient.copy())
        optimiser.step({"w": gradient})
        reference.step()
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_training_follows_pytorch_step_by_step():
    width, hidden, rate = 24, 16, 1e-3
    network = random_network(width, hidden, np.float32)
    module = as_module(network)
    module.hidden_layer.bias.requires_grad_(False)  # its gradient is rounding error, see above
    optimiser = Adam({name: getattr(network, name) for name in TRAINED}, rate)
    trained = [each for each in module.parameters() if each.requires_grad]
    reference = torch.optim.Adam(trained, lr=rate)
    draw = np.random.default_rng(8)
    for _ in range(40):
        features = draw.normal(size=(32, width)).astype(np.float32)
        labels = (features[:, 0] + draw.normal(size=32) > 0).astype(np.int64)
        weights = np.where(labels == 1, 1.5, 0.75)
        loss = train_step(network, optimiser, features, labels, weights, None)

        reference.zero_grad()
        logits = module(torch.from_numpy(features))
        losses = nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
        expected = (losses * torch.from_numpy(weights)).mean()
        expected.backward()
        reference.step()
        assert loss == pytest.approx(expected.item(), abs=1e-5)
        state = module.state_dict()
        for name, array in vars(network).items():
            theirs = state[MODULE_NAMES[name]].numpy()
            np.testing.assert_allclose(array, theirs, atol=1e-5, err_msg=name)
