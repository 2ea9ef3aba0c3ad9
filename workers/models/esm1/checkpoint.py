"""ESM-1b's and ESM-1v's checkpoints in Hugging Face's and fair-esm's format.

Their tensors are those of ESM-2 and a table of positions; ESM-1b has one more LayerNorm.
"""

from dataclasses import replace
from pathlib import Path

from common.model_specs import ModelSpec
from workers.models.esm1.model import ESM1
from workers.models.esm2 import checkpoint as esm2
from workers.models.weight_files import Names, State, check_fit, taker

HUGGING_FACE = replace(
    esm2.HUGGING_FACE,
    patterns={
        **esm2.HUGGING_FACE.patterns,
        r"embeddings\.position_embeddings\.": "embed_positions.",
        r"embeddings\.layer_norm\.": "embed_norm.",
    },
    unused=r"position_ids$|rotary_embeddings\.inv_freq$",
)

FAIR_ESM = replace(
    esm2.FAIR_ESM,
    patterns={
        **esm2.FAIR_ESM.patterns,
        r"embed_positions\.": "embed_positions.",
        r"emb_layer_norm_before\.": "embed_norm.",
    },
)


def names_of(raw: State) -> Names:
    """Return the format of a checkpoint's tensors."""
    return FAIR_ESM if esm2.is_fair_esm(raw) else HUGGING_FACE


def from_published(raw: State, spec: ModelSpec, place: Path) -> State:
    """Return a checkpoint's tensors under this project's names.

    Raises:
        UserError: a tensor is missing, or differs from that of any ESM-1b or ESM-1v.
    """
    names = names_of(raw)
    state = names.rename(raw, place)
    state = {name: tensor for name, tensor in state.items() if ".rotary." not in name}
    fused = esm2.fuse(state, taker(state, raw, names, place), spec, place)
    check_fit(fused, ESM1, spec, names, place)
    return fused
