"""Random weights, scaled in one layer until FP16 overflows: for one rare letter, and in one place.

FP16 ends at 65504. Every case is finite in FP32, for every letter.
"""

from collections.abc import Callable

import esm
import torch
from torch import Tensor

from tests.support.fair_esm import ALPHABET

#: Pyrrolysine, in no protein of the tests but those that are to overflow.
RARE = "O"

#: What a LayerNorm makes of the rare letter's embedding in its own direction is sqrt(D); of
#: any other letter's at most half of that.
GATE = 100.0


def add_to_the_stream(model: esm.ESM2) -> None:
    """Two layers add 45,000 each: what a layer adds is in range, the residual stream is not."""
    column = open_gate(model, 0, rare_direction(model), 45_000.0)
    open_gate(model, 1, column, 45_000.0)


def add_too_much_at_once(model: esm.ESM2) -> None:
    """One MLP's output is 90,000."""
    open_gate(model, 0, rare_direction(model), 90_000.0)


def overflow_a_hidden_unit(model: esm.ESM2) -> None:
    """One hidden unit of an MLP is beyond the range, however little of it is used."""
    model.layers[0].fc1.weight[0] = 16_000.0 * rare_direction(model)
    model.layers[0].fc1.bias[0] = 0.0
    model.layers[0].fc2.weight[:, 0] = 1e-6


def overflow_a_query(model: esm.ESM2) -> None:
    """One component of a query is beyond the range."""
    model.layers[0].self_attn.q_proj.weight[0] = 16_000.0 * rare_direction(model)
    model.layers[0].self_attn.k_proj.weight[0] = 0.0
    model.layers[0].self_attn.k_proj.bias[0] = 0.0


def overflow_the_scores(model: esm.ESM2) -> None:
    """Attention scores are beyond the range; queries and keys are not."""
    for projection in (model.layers[0].self_attn.q_proj, model.layers[0].self_attn.k_proj):
        projection.weight *= 500.0
        projection.bias *= 500.0


Overflow = Callable[[esm.ESM2], None]


def rare_direction(model: esm.ESM2) -> Tensor:
    """The rare letter's direction after a LayerNorm; its embedding becomes so large that no
    attention turns it.
    """
    embeddings = model.embed_tokens.weight
    embedding = embeddings[ALPHABET.get_idx(RARE)]
    embedding *= 1000.0 / embedding.norm()
    for layer in model.layers[:1]:
        for norm in (layer.self_attn_layer_norm, layer.final_layer_norm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    return unit(embedding)


def unit(vector: Tensor) -> Tensor:
    centred = vector - vector.mean()
    return centred / centred.norm()


def open_gate(model: esm.ESM2, index: int, direction: Tensor, amount: float) -> Tensor:
    """Let the first hidden unit of an MLP open for one direction alone, and then add ``amount``.

    Returns:
        The direction in which the stream is then.
    """
    layer, width = model.layers[index], len(direction)
    layer.final_layer_norm.weight.fill_(1.0)
    layer.final_layer_norm.bias.zero_()
    layer.fc1.weight[0] = GATE * direction
    layer.fc1.bias[0] = -0.7 * GATE * width**0.5
    generator = torch.Generator().manual_seed(index)
    signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0
    layer.fc2.weight[:, 0] = signs * amount / (0.3 * GATE * width**0.5)
    return unit(signs)
