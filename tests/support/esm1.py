"""ESM-1b and ESM-1v of fair-esm 2.0.0 with random weights, in the formats that users have."""

import argparse
from pathlib import Path
from typing import Any

import esm
import torch
from transformers import EsmConfig, EsmForMaskedLM

from common.model_specs import ESM1, ModelSpec
from tests.support.fair_esm import ALPHABET
from tests.support.random_values import fill_at_random

#: Small models; ``embed_norm`` is what tells ESM-1b from ESM-1v.
ESM1B = ModelSpec(name="esm1b", layers=3, dim=64, heads=4, family=ESM1, embed_norm=True)
ESM1V = ModelSpec(name="esm1v", layers=3, dim=64, heads=4, family=ESM1)


def random_esm1(spec: ModelSpec, seed: int = 0) -> esm.ProteinBertModel:
    """Return fair-esm's model in FP32 with random weights."""
    given = argparse.Namespace(
        arch="roberta_large",
        layers=spec.layers,
        embed_dim=spec.dim,
        ffn_embed_dim=4 * spec.dim,
        attention_heads=spec.heads,
        max_positions=1024,
        emb_layer_norm_before=spec.embed_norm,
        token_dropout=True,
    )
    model = esm.ProteinBertModel(given, ALPHABET).eval().requires_grad_(False)
    fill_at_random(model, seed)
    return model


def save_fair_esm1(model: esm.ProteinBertModel, path: Path) -> Path:
    """Write a checkpoint in the authors' form."""
    args = vars(model.args)
    given = {
        name if name in ("arch", "max_positions", "token_dropout") else f"encoder_{name}": value
        for name, value in args.items()
    }
    weights = {
        f"encoder.{'' if name.startswith('lm_head') else 'sentence_encoder.'}{name}": tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("contact_head.")
    }
    torch.save({"args": argparse.Namespace(**given), "model": weights}, path)
    return path


def to_hugging_face(model: esm.ProteinBertModel, spec: ModelSpec) -> Any:
    """Return transformers' model with the weights of fair-esm's."""
    config = EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=spec.dim,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.dim,
        max_position_embeddings=1026,
        layer_norm_eps=1e-5,
        position_embedding_type="absolute",
        emb_layer_norm_before=spec.embed_norm,
        token_dropout=True,
    )
    other = EsmForMaskedLM(config).eval().requires_grad_(False)
    named = {published_name(name): tensor for name, tensor in model.state_dict().items()}
    missing, unexpected = other.load_state_dict(named, strict=False)
    assert all("contact_head" in name or "position_ids" in name for name in missing), missing
    assert all("contact_head" in name for name in unexpected), unexpected
    return other


#: Parts of fair-esm's names and transformers', the longer ones first.
PARTS = {
    "self_attn_layer_norm.": "attention.LayerNorm.",
    "self_attn.q_proj.": "attention.self.query.",
    "self_attn.k_proj.": "attention.self.key.",
    "self_attn.v_proj.": "attention.self.value.",
    "self_attn.out_proj.": "attention.output.dense.",
    "final_layer_norm.": "LayerNorm.",
    "fc1.": "intermediate.dense.",
    "fc2.": "output.dense.",
    "layers.": "esm.encoder.layer.",
    "embed_tokens.": "esm.embeddings.word_embeddings.",
    "embed_positions.": "esm.embeddings.position_embeddings.",
    "emb_layer_norm_before.": "esm.embeddings.layer_norm.",
    "emb_layer_norm_after.": "esm.encoder.emb_layer_norm_after.",
    "lm_head.weight": "lm_head.decoder.weight",
}


def published_name(name: str) -> str:
    """Return transformers' name of one of fair-esm's tensors."""
    for theirs, other in PARTS.items():
        name = name.replace(theirs, other)
    return name
