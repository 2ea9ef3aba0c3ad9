"""Random weights, for trying the fleet without a download and for measuring speed."""

import torch
from torch import Tensor, nn

from common.model_specs import ModelSpec
from workers.models.attention.alibi import alibi_slopes
from workers.models.rotary import exact_inv_freq

#: Number of random values drawn; larger models repeat them. It is a prime, so that no two rows of a
#: matrix begin with the same value.
DRAWN = 16_777_213


def random_weights(model: type[nn.Module], spec: ModelSpec, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights, the same on every machine, that give activations of a usual size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model(spec).state_dict().items()}
    total = sum(shape.numel() for shape in shapes.values())
    # Drawing 3 billion values would take minutes.
    drawn = torch.randn(min(total, DRAWN), generator=generator)
    state, start = {}, 0
    for name, shape in shapes.items():
        values = torch.empty(shape)
        start = fill_from(drawn, start, values.view(-1))
        state[name] = values.mul_(random_scale(name, shape))
        if name.endswith("norm.weight"):
            values += 1.0
    exact = {
        "rotary.inv_freq": exact_inv_freq(spec.dim // spec.heads),
        "alibi.slopes": alibi_slopes(spec.heads),
    }
    return state | {name: exact[name] for name in state.keys() & exact.keys()}


def fill_from(drawn: Tensor, start: int, values: Tensor) -> int:
    """Fill ``values`` ``[n]`` from ``drawn``, repeated; return where the next values start."""
    filled = 0
    while filled < len(values):
        part = drawn[start : start + len(values) - filled]
        values[filled : filled + len(part)] = part
        filled, start = filled + len(part), (start + len(part)) % len(drawn)
    return start


def random_scale(name: str, shape: torch.Size) -> float:
    """Return the standard deviation of weights that keep a product as large as its input."""
    is_matrix = len(shape) == 2 and not name.startswith("embed_")
    return float(shape[1]) ** -0.5 if is_matrix else 1.0 if len(shape) == 2 else 0.1
