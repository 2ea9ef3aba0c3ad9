"""Random weights of DNABERT-S, scaled until FP16 overflows: a part of ``overflow.py``."""

from torch import Tensor

from tests.support.dnabert import Weights, small_spec

#: Id of the unknown token in the tokenizer for random weights: any letter but A, C, G and T.
UNKNOWN = 0

LAYER = "encoder.layer.0."

#: The component of the stream in which only the unknown token is not 0.
OWN = 0

#: Value of a unit of the first layer's MLP for the unknown token, if it is to be in range.
HIDDEN = 1000.0

DNA_SPEC = small_spec(heads=4, dim=64)


def add_to_the_stream_of_dna(weights: Weights) -> None:
    """An MLP adds 64,000 to a component of 4,000: both are in range, their sum is not.

    The sum is normed at once, so nothing else can overflow.
    """
    found = own_component(weights)
    open_unit(weights, HIDDEN, 4000.0)
    weights[LAYER + "attention.output.LayerNorm.weight"][OWN] = 4000.0 / found
    weights[LAYER + "mlp.wo.weight"][OWN, 0] = 64_000.0 / HIDDEN


def add_too_much_at_once_to_dna(weights: Weights) -> None:
    """One MLP's output is 90,000."""
    open_unit(weights, HIDDEN, own_component(weights))
    weights[LAYER + "mlp.wo.weight"][:, 0] = 90_000.0 / HIDDEN


def overflow_a_hidden_unit_of_dna(weights: Weights) -> None:
    """A gate times its value is beyond the range, though both are in it."""
    open_unit(weights, 128_000.0, own_component(weights))
    weights[LAYER + "mlp.wo.weight"][:, 0] = 1e-6


def overflow_a_gate_of_dna(weights: Weights) -> None:
    """A gate is beyond the range, towards -Inf, where nothing passes it."""
    found = own_component(weights)
    open_unit(weights, 1.0, found)
    weights[LAYER + "mlp.gated_layers.weight"][0, OWN] = -128_000.0 / found


def overflow_a_query_of_dna(weights: Weights) -> None:
    """One component of each head's query is beyond the range."""
    set_component(weights, "query", of_unknown=128_000.0)
    set_component(weights, "key")


def overflow_a_key_of_dna(weights: Weights) -> None:
    """Overflow a component of each head's key towards -Inf, where all queries are positive."""
    set_component(weights, "query", bias=1e-6)
    set_component(weights, "key", of_unknown=-128_000.0)


def overflow_a_value_of_dna(weights: Weights) -> None:
    """One component of each head's value is beyond the range, however little of it is used."""
    set_component(weights, "value", of_unknown=-128_000.0)
    per_head(weights[LAYER + "attention.output.dense.weight"].T)[:, 0] = 1e-6


def own_component(weights: Weights) -> float:
    """Give the unknown token a component of its own; return its value at the first layer."""
    words = weights["embeddings.word_embeddings.weight"]
    for table in (words, weights["embeddings.token_type_embeddings.weight"]):
        table[:, OWN] = 0.0
        table[:, OWN + 1 :] -= table[:, OWN + 1 :].mean(1, keepdim=True)
    words[UNKNOWN, OWN] = 1000.0
    keep_component(weights, "embeddings.LayerNorm")
    return float(words.shape[1] - 1) ** 0.5


def keep_component(weights: Weights, norm: str) -> None:
    weights[norm + ".weight"][OWN], weights[norm + ".bias"][OWN] = 1.0, 0.0


def open_unit(weights: Weights, amount: float, found: float) -> None:
    """Make the first unit of the gated MLP ``amount`` where the own component is ``found``.

    Nothing else reads that component. Attention becomes so weak that it does not change it.
    """
    weights[LAYER + "attention.output.dense.weight"] *= 0.01
    weights[LAYER + "attention.output.dense.bias"] *= 0.01
    keep_component(weights, LAYER + "attention.output.LayerNorm")
    gated = weights[LAYER + "mlp.gated_layers.weight"]
    gated[:, OWN] = 0.0
    for row in (0, len(gated) // 2):
        gated[row] = 0.0
        gated[row, OWN] = amount**0.5 / found


def set_component(
    weights: Weights, which: str, *, of_unknown: float = 0.0, bias: float = 0.0
) -> None:
    """Set the first component of each head's queries, keys or values to ``bias``, plus
    ``of_unknown`` for the unknown token.
    """
    found = own_component(weights)
    part = ("query", "key", "value").index(which)
    fused = weights[LAYER + "attention.self.Wqkv.weight"].chunk(3)[part]
    per_head(fused)[:, 0] = 0.0
    per_head(fused)[:, 0, OWN] = of_unknown / found
    per_head(weights[LAYER + "attention.self.Wqkv.bias"].chunk(3)[part])[:, 0] = bias


def per_head(rows: Tensor) -> Tensor:
    """Return ``[D, ...]`` as ``[H, Dh, ...]``."""
    return rows.unflatten(0, (DNA_SPEC.heads, -1))
