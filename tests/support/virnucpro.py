"""VirNucPro's classifier in torch, as its authors define it, and made-up weights for it."""

import torch
from torch import Tensor, nn


class MLPClassifier(nn.Module):
    """Two layers, with the names of attributes that the published files have."""

    def __init__(self, features: int, hidden: int, classes: int = 2) -> None:
        super().__init__()
        self.hidden_layer = nn.Linear(features, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.output_layer = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.hidden_layer(x)))
        return self.output_layer(self.dropout(x))


def trained_module(features: int, hidden: int, seed: int = 0) -> MLPClassifier:
    """Return a module whose running statistics are not those of a new one."""
    generator = torch.manual_seed(seed)
    module = MLPClassifier(features, hidden)
    with torch.no_grad():
        module.output_layer.weight *= 4
        for _ in range(3):
            module(torch.randn(64, features, generator=generator) * 2 + 0.3)
    return module.eval()
