"""The published DNABERT-S checkpoint under our names. Every quirk of it ends here."""

import re
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from common.modeltable import ModelSpec, read_hugging_face_config
from workers.models.alibi import alibi_slopes
from workers.models.checkpoints import State, modern_name, read_tensors, taker, weight_files
from workers.models.dnabert_s import DNABERTS, VOCABULARY

#: Names in the checkpoint, after ``bert.`` was taken off, and ours.
NAMES = {
    r"embeddings\.word_embeddings\.": "embed_tokens.",
    r"embeddings\.token_type_embeddings\.": "token_type.",
    r"embeddings\.LayerNorm\.": "embed_norm.",
    r"encoder\.layer\.(\d+)\.attention\.self\.Wqkv\.": r"blocks.\1.qkv.",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\1.out.",
    r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.": r"blocks.\1.attention_norm.",
    r"encoder\.layer\.(\d+)\.mlp\.gated_layers\.": r"blocks.\1.fc1.",
    r"encoder\.layer\.(\d+)\.mlp\.wo\.": r"blocks.\1.fc2.",
    r"encoder\.layer\.(\d+)\.mlp\.layernorm\.": r"blocks.\1.mlp_norm.",
}

#: What a BERT has that DNABERT-S has not.
PLAIN_BERT = re.compile(r"position_embeddings\.weight$|attention\.self\.(query|key|value)\.")


def read_dnabert_s(folder: Path) -> tuple[ModelSpec, State]:
    """Read a folder with ``config.json`` and weights in one or more files.

    Raises:
        UserError: something is missing or unreadable, or this is another model.
    """
    files = weight_files(folder)
    if not files or not (folder / "config.json").is_file():
        raise UserError(f"{folder}: needs config.json and *.safetensors or pytorch_model*.bin.")
    spec = read_hugging_face_config(folder / "config.json")
    raw = {
        modern_name(name.removeprefix("bert.")): tensor
        for file in files
        for name, tensor in read_tensors(file)
    }
    refuse_plain_bert(raw, folder)
    return spec, to_our_names(raw, spec, folder)


def refuse_plain_bert(raw: State, folder: Path) -> None:
    foreign = next(filter(PLAIN_BERT.search, raw), None)
    if foreign is not None:
        raise UserError(
            f"{folder}: {foreign} is a plain BERT's, not DNABERT-S's, which has ALiBi in place of "
            "position embeddings and one projection, Wqkv. Take the weights as they were published."
        )


def to_our_names(raw: State, spec: ModelSpec, folder: Path) -> State:
    """Rename, and make one embedding of words and token types.

    What no rule names (pooler, language-model head) is not needed for embeddings.
    """
    state = {
        re.sub(pattern, ours, name, count=1): tensor
        for name, tensor in raw.items()
        for pattern, ours in NAMES.items()
        if re.match(pattern, name)
    }
    take = taker(state, folder)
    words, types = take("embed_tokens.weight"), take("token_type.weight")
    if len(words) != VOCABULARY:
        raise UserError(
            f"{folder}: a vocabulary of {len(words)} tokens, unlike DNABERT-S's {VOCABULARY}."
        )
    # Sequences are embedded one at a time, so every token is of the first type.
    state["embed_tokens.weight"] = words.float() + types[0].float()
    state["alibi.slopes"] = alibi_slopes(spec.heads)  # a formula; no checkpoint has them
    check_complete(state, spec, folder)
    return state


def check_complete(state: State, spec: ModelSpec, folder: Path) -> None:
    with torch.device("meta"):
        expected: dict[str, Tensor] = DNABERTS(spec).state_dict()
    missing = sorted(expected.keys() - state.keys())
    if missing:
        raise UserError(f"{folder}: {missing[0]} is missing from these weights.")
