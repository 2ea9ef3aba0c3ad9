"""Weights that mean nothing: for trying the fleet without a download, and for measuring speed."""

import torch
from torch import Tensor, nn

from common.modeltable import ModelSpec
from workers.models.alibi import alibi_slopes
from workers.models.esm2 import exact_inv_freq


def random_weights(model: type[nn.Module], spec: ModelSpec, seed: int = 0) -> dict[str, Tensor]:
    """Weights that mean nothing, the same on every machine, with activations of a usual size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model(spec).state_dict().items()}
    state = {
        name: torch.randn(shape, generator=generator) * random_scale(name, shape)
        for name, shape in shapes.items()
    }
    for name in state:
        if name.endswith("norm.weight"):
            state[name] += 1.0
    exact = {
        "rotary.inv_freq": exact_inv_freq(spec.dim // spec.heads),
        "alibi.slopes": alibi_slopes(spec.heads),
    }
    return state | {name: exact[name] for name in state.keys() & exact.keys()}


def random_scale(name: str, shape: torch.Size) -> float:
    """Standard deviation that keeps a matrix product's output as large as its input."""
    is_matrix = len(shape) == 2 and name != "embed_tokens.weight"
    return float(shape[1]) ** -0.5 if is_matrix else 1.0 if len(shape) == 2 else 0.1
