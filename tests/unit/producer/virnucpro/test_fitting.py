"""The loss of held-out frames, by which the best epoch is chosen."""

import numpy as np
import pytest
import torch
from torch import nn

from producer.virnucpro.fitting import Sets
from producer.virnucpro.network import Network
from tests.unit.producer.virnucpro.test_network import as_module


def test_the_held_out_loss_is_the_mean_of_those_of_the_classes():
    draw = np.random.default_rng(0)
    features = draw.normal(size=(400, 6)).astype(np.float32)
    labels = (draw.random(400) < 0.1).astype(np.int64)
    held_out = draw.random(400) < 0.5
    network = Network.initial(6, 5, draw)
    found = Sets(features, labels, ~held_out, held_out).held_out_loss(network)

    with torch.no_grad():
        logits = as_module(network).eval()(torch.from_numpy(features[held_out]))
    truth = torch.from_numpy(labels[held_out])
    losses = nn.functional.cross_entropy(logits, truth, reduction="none").numpy()
    means = [losses[labels[held_out] == label].mean() for label in (0, 1)]
    assert found == pytest.approx(np.mean(means), rel=1e-5)
