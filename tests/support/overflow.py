"""Random weights, scaled in one layer until FP16 overflows, for one rare letter and in one place.

The largest FP16 number is 65504. Every case is finite in FP32, for every letter.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import esm
import torch
from torch import Tensor

from common.job.output_form import OutputForm
from common.job.records import Record
from common.model_specs import ModelSpec
from common.rungs import Rung
from tests.support.dnabert import Weights, random_checkpoint, save_checkpoint, small_spec
from tests.support.fair_esm import ALPHABET, random_fair_esm, save_fair_esm

# --- ESM-2 ------------------------------------------------------------------------------------

#: The rare letter, pyrrolysine, which only proteins contain that are to overflow.
RARE = "O"

#: Factor of the gate. After a LayerNorm, the rare letter's embedding has sqrt(D) in its own
#: direction, any other letter's at most half of that.
GATE = 100.0


def add_to_the_stream(model: esm.ESM2) -> None:
    """Two layers add 45,000 each: what a layer adds is in range, the residual stream is not."""
    column = open_gate(model, 0, rare_direction(model), 45_000.0)
    open_gate(model, 1, column, 45_000.0)


def add_too_much_at_once(model: esm.ESM2) -> None:
    """One MLP's output is 90,000."""
    open_gate(model, 0, rare_direction(model), 90_000.0)


def overflow_a_hidden_unit(model: esm.ESM2, amount: float = 16_000.0) -> None:
    """One hidden unit of an MLP is beyond the range, however little of it is used."""
    model.layers[0].fc1.weight[0] = amount * rare_direction(model)
    model.layers[0].fc1.bias[0] = 0.0
    model.layers[0].fc2.weight[:, 0] = 1e-6


def overflow_a_hidden_unit_below(model: esm.ESM2) -> None:
    """Overflow a hidden unit towards -Inf, where GELU makes it 0."""
    overflow_a_hidden_unit(model, -16_000.0)


def overflow_a_query(model: esm.ESM2) -> None:
    """One component of a query is beyond the range."""
    model.layers[0].self_attn.q_proj.weight[0] = 16_000.0 * rare_direction(model)
    model.layers[0].self_attn.k_proj.weight[0] = 0.0
    model.layers[0].self_attn.k_proj.bias[0] = 0.0


def overflow_a_key(model: esm.ESM2) -> None:
    """Overflow a component of each head's key towards -Inf, where all queries are positive.

    So its scores are -Inf, its weights 0, and the rest is finite. It is one of the two components
    that the rotary embedding turns least, so that their signs stay.
    """
    attention = model.layers[0].self_attn
    direction = rare_direction(model)
    for end in range(attention.head_dim, model.embed_dim + 1, attention.head_dim):
        pair = [end - attention.head_dim // 2 - 1, end - 1]
        attention.q_proj.weight[pair], attention.q_proj.bias[pair] = 0.0, 1e-6
        attention.k_proj.weight[pair], attention.k_proj.bias[pair] = 0.0, 0.0
        attention.k_proj.weight[pair[0]] = -16_000.0 * direction


def overflow_a_value(model: esm.ESM2) -> None:
    """One component of a value is beyond the range, however little of it is used."""
    attention = model.layers[0].self_attn
    attention.v_proj.weight[0] = -16_000.0 * rare_direction(model)
    attention.v_proj.bias[0] = 0.0
    attention.out_proj.weight[:, 0] = 1e-6


def overflow_the_scores(model: esm.ESM2) -> None:
    """Attention scores are beyond the range; queries and keys are not."""
    for projection in (model.layers[0].self_attn.q_proj, model.layers[0].self_attn.k_proj):
        projection.weight *= 500.0
        projection.bias *= 500.0


def rare_direction(model: esm.ESM2) -> Tensor:
    """Return the rare letter's direction after a LayerNorm, and enlarge its embedding so much that
    attention does not turn it.
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
    """Make the first hidden unit of an MLP open for one direction only, and then add ``amount``.

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


# --- DNABERT-S --------------------------------------------------------------------------------

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


# --- what each rung repairs -------------------------------------------------------------------

Overflow = Callable[[Any], None]


class Model(NamedTuple):
    """A model that can be made to overflow, and records for it."""

    save: Callable[[Overflow, Path], Path]  # a checkpoint that overflows
    good: list[str]  # without the rare letter
    bad: str  # with it
    harmless: str  # without it, of as many tokens
    form: OutputForm

    def records(self, middle: str) -> list[Record]:
        """Return nine records, with ``middle`` at row 4."""
        rows = [*self.good, middle, *self.good]
        return [Record(row, f"r{row}", residues) for row, residues in enumerate(rows)]


def nowhere(_: Any) -> None:
    """Change nothing."""


def save_protein_model(overflow: Overflow, folder: Path) -> Path:
    model = random_fair_esm(ModelSpec(name="small", layers=2, dim=64, heads=4))
    overflow(model)
    return save_fair_esm(model, folder / f"{overflow.__name__}.pt")


def save_dna_model(overflow: Overflow, folder: Path) -> Path:
    weights = random_checkpoint(DNA_SPEC)
    overflow(weights)
    return save_checkpoint(DNA_SPEC, weights, folder / overflow.__name__)


PROTEIN = Model(
    save=save_protein_model,
    good=["MKTAYIAKQRQISFVKSHFSRQ", "GAVLIPFMW", "MDEEKLLSNQWERTYCCH", "M"],
    bad="MKTAYIAKQRQISF" + RARE + "KSHFS",
    harmless="MKTAYIAKQRQISFVKSHFS",
    form=OutputForm(
        include=("mean", "bos", "per_residue"), residue_dtype="float32", max_residues=99
    ),
)

DNA = Model(
    save=save_dna_model,
    good=["GATTACAGATTACAGGC", "ACGT", "TTGACCAGTCCATGGACCATTTACG", "A"],
    bad="ACGTTGCAACGTNACGGT",
    harmless="ACGTTGCAACGTTACGGTAAC",
    form=OutputForm(include=("mean", "bos"), max_residues=99),
)

REPAIRED_BY = [
    (PROTEIN, add_to_the_stream, Rung.SELECTIVE_FP32),
    (PROTEIN, add_too_much_at_once, Rung.SELECTIVE_FP32),
    (PROTEIN, overflow_a_hidden_unit, Rung.FP32),
    (PROTEIN, overflow_a_hidden_unit_below, Rung.FP32),
    (PROTEIN, overflow_a_query, Rung.FP32),
    (PROTEIN, overflow_a_key, Rung.FP32),
    (PROTEIN, overflow_a_value, Rung.FP32),
    (DNA, add_to_the_stream_of_dna, Rung.SELECTIVE_FP32),
    (DNA, add_too_much_at_once_to_dna, Rung.SELECTIVE_FP32),
    (DNA, overflow_a_hidden_unit_of_dna, Rung.FP32),
    (DNA, overflow_a_gate_of_dna, Rung.FP32),
    (DNA, overflow_a_query_of_dna, Rung.FP32),
    (DNA, overflow_a_key_of_dna, Rung.FP32),
    (DNA, overflow_a_value_of_dna, Rung.FP32),
]
