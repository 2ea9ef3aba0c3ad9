"""Random weights for the models of other libraries, of a size that keeps activations usual."""

import torch
from torch import nn


def fill_at_random(model: nn.Module, seed: int) -> None:
    """Replace all weights of a model: the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            weight.copy_(0.1 * noise + ("norm" in name and name.endswith("weight")))
        else:
            weight.copy_(noise if "embed" in name else noise * weight.shape[1] ** -0.5)
