"""The published DNABERT-S checkpoint under this project's names.

Its quirks are handled here and nowhere else.
"""

import re
from pathlib import Path

from common.errors import UserError
from common.model_specs import ModelSpec
from workers.models.attention.alibi import alibi_slopes
from workers.models.dnabert_s.model import DNABERTS, VOCABULARY
from workers.models.weight_files import Names, State, check_fit, taker

NAMES = Names(
    prefix=r"(?:bert\.)?",
    patterns={
        r"embeddings\.word_embeddings\.": "embed_tokens.",
        r"embeddings\.token_type_embeddings\.": "token_type.",
        r"embeddings\.LayerNorm\.": "embed_norm.",
        r"encoder\.layer\.(\d+)\.attention\.self\.Wqkv\.": r"blocks.\1.qkv.",
        r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\1.out.",
        r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.": r"blocks.\1.attention_norm.",
        r"encoder\.layer\.(\d+)\.mlp\.gated_layers\.": r"blocks.\1.fc1.",
        r"encoder\.layer\.(\d+)\.mlp\.wo\.": r"blocks.\1.fc2.",
        r"encoder\.layer\.(\d+)\.mlp\.layernorm\.": r"blocks.\1.mlp_norm.",
    },
    inside=r"(?:embeddings|encoder)\.",
    unused=r"position_ids$|alibi$|slopes$",
)

#: Tensors that a plain BERT has and DNABERT-S lacks.
PLAIN_BERT = re.compile(r"position_embeddings\.weight$|attention\.self\.(query|key|value)\.")


def names_of(raw: State) -> Names:
    """Return the format of a checkpoint's tensors, which is the only one."""
    return NAMES


def from_published(raw: State, spec: ModelSpec, folder: Path) -> State:
    """Return the tensors of ``read_hugging_face`` under this project's names.

    Args:
        raw: tensors under their published names.
        spec: the model's shape.
        folder: where they come from, for errors.

    Raises:
        UserError: a tensor is missing, or this is another model.
    """
    refuse_plain_bert(raw, folder)
    state = NAMES.rename(raw, folder)
    take = taker(state, raw, NAMES, folder)
    words, types = take("embed_tokens.weight"), take("token_type.weight")
    if len(words) != VOCABULARY:
        raise UserError(
            f"{folder}: a vocabulary of {len(words)} tokens, unlike DNABERT-S's {VOCABULARY}."
        )
    # Sequences are embedded one at a time, so every token is of the first type.
    state["embed_tokens.weight"] = words.float() + types[0].float()
    state["alibi.slopes"] = alibi_slopes(spec.heads)  # by formula: no checkpoint has them
    check_fit(state, DNABERTS, spec, NAMES, folder)
    return state


def refuse_plain_bert(raw: State, folder: Path) -> None:
    foreign = next(filter(PLAIN_BERT.search, raw), None)
    if foreign is not None:
        raise UserError(
            f"{folder}: {foreign} is a tensor of a plain BERT. DNABERT-S has ALiBi in place of "
            "position embeddings, and one projection, Wqkv. Use the weights as published."
        )
