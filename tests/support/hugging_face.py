"""transformers' ESM-2 with the weights of a fair-esm model."""

import re

import esm
from transformers import EsmConfig, EsmForMaskedLM

#: Names in fair-esm's model and in transformers', in the order in which they are tried.
NAMES = {
    r"embed_tokens\.": "esm.embeddings.word_embeddings.",
    r"emb_layer_norm_after\.": "esm.encoder.emb_layer_norm_after.",
    r"layers\.(\d+)\.self_attn\.q_proj\.": r"esm.encoder.layer.\1.attention.self.query.",
    r"layers\.(\d+)\.self_attn\.k_proj\.": r"esm.encoder.layer.\1.attention.self.key.",
    r"layers\.(\d+)\.self_attn\.v_proj\.": r"esm.encoder.layer.\1.attention.self.value.",
    r"layers\.(\d+)\.self_attn\.out_proj\.": r"esm.encoder.layer.\1.attention.output.dense.",
    r"layers\.(\d+)\.self_attn_layer_norm\.": r"esm.encoder.layer.\1.attention.LayerNorm.",
    r"layers\.(\d+)\.self_attn\.rot_emb\.": (
        r"esm.encoder.layer.\1.attention.self.rotary_embeddings."
    ),
    r"layers\.(\d+)\.fc1\.": r"esm.encoder.layer.\1.intermediate.dense.",
    r"layers\.(\d+)\.fc2\.": r"esm.encoder.layer.\1.output.dense.",
    r"layers\.(\d+)\.final_layer_norm\.": r"esm.encoder.layer.\1.LayerNorm.",
    r"contact_head\.": "esm.contact_head.",
    r"lm_head\.weight": "lm_head.decoder.weight",
    r"lm_head\.bias": "lm_head.bias",
    r"lm_head\.": "lm_head.",
}


def published_name(name: str) -> str:
    """Return the name of one of fair-esm's weights in the published ``facebook/esm2_*`` files."""
    for pattern, theirs in NAMES.items():
        if re.match(pattern, name):
            return re.sub(pattern, theirs, name, count=1)
    raise KeyError(name)


def to_hugging_face(model: esm.ESM2) -> EsmForMaskedLM:
    """Return transformers' model with the same shape and weights."""
    config = EsmConfig(
        vocab_size=model.alphabet_size,
        mask_token_id=model.mask_idx,
        pad_token_id=model.padding_idx,
        hidden_size=model.embed_dim,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.attention_heads,
        intermediate_size=4 * model.embed_dim,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        layer_norm_eps=1e-5,
    )
    theirs = EsmForMaskedLM(config).eval().requires_grad_(False)
    weights = {published_name(name): tensor for name, tensor in model.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert unexpected == ["lm_head.decoder.bias"] or not unexpected, unexpected
    assert set(missing) <= {"esm.embeddings.position_ids", "lm_head.decoder.bias"}, missing
    return theirs
