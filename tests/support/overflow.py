"""Random weights, scaled in one layer until FP16 overflows, for one rare letter and in one place.

Those of ESM-2 are here, those of DNABERT-S in ``overflow_dna.py``. The largest FP16
number is 65504. Every case is finite in FP32, for every letter.
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
from tests.support.dnabert import random_checkpoint, save_checkpoint
from tests.support.fair_esm import ALPHABET, random_fair_esm, save_fair_esm
from tests.support.overflow_dna import (
    DNA_SPEC,
    add_to_the_stream_of_dna,
    add_too_much_at_once_to_dna,
    overflow_a_gate_of_dna,
    overflow_a_hidden_unit_of_dna,
    overflow_a_key_of_dna,
    overflow_a_query_of_dna,
    overflow_a_value_of_dna,
)

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
