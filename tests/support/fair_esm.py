"""fair-esm 2.0.0, the published ESM-2, with random weights: a reference for tests."""

import argparse
from pathlib import Path

import esm
import torch
from esm.pretrained import load_model_and_alphabet_core
from torch import Tensor

from common.model_specs import ModelSpec
from tests.support.random_values import fill_at_random

ALPHABET = esm.Alphabet.from_architecture("ESM-1b")


def random_fair_esm(spec: ModelSpec, seed: int = 0) -> esm.ESM2:
    """Return fair-esm's model with random weights and random rotary frequencies.

    In the published checkpoints, too, the frequencies differ from the formula's.
    """
    model = esm.ESM2(spec.layers, spec.dim, spec.heads, ALPHABET).eval().requires_grad_(False)
    fill_at_random(model, seed)
    for layer in model.layers:
        frequencies = layer.self_attn.rot_emb.inv_freq
        frequencies.copy_(frequencies.half() * 1.01)
    return model


def save_fair_esm(model: esm.ESM2, path: Path) -> Path:
    """Write a checkpoint in the authors' form; the contact head has a separate file."""
    config = argparse.Namespace(
        encoder_layers=model.num_layers,
        encoder_embed_dim=model.embed_dim,
        encoder_attention_heads=model.attention_heads,
        token_dropout=model.token_dropout,
    )
    weights = {
        checkpoint_name(name): tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("contact_head.")
    }
    torch.save({"cfg": {"model": config}, "model": weights}, path)
    return path


def save_contact_regression(model: esm.ESM2, checkpoint: Path) -> None:
    """Write the file with the contact head beside a checkpoint, as the authors do."""
    weights = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("contact_head.")
    }
    path = checkpoint.with_name(f"{checkpoint.stem}-contact-regression.pt")
    torch.save({"model": weights}, path)


def checkpoint_name(name: str) -> str:
    prefix = "encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder."
    return prefix + name


def load_fair_esm(path: Path) -> esm.ESM2:
    """Read a checkpoint with fair-esm's own loader, which shows that it is valid."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        data = torch.load(path, weights_only=True)
    heads = data["cfg"]["model"].encoder_layers * data["cfg"]["model"].encoder_attention_heads
    contact_head = {"weight": torch.zeros(1, heads), "bias": torch.zeros(1)}
    regression = {f"contact_head.regression.{kind}": value for kind, value in contact_head.items()}
    model, _ = load_model_and_alphabet_core("esm2", data, {"model": regression})
    return model.eval().requires_grad_(False)


def tokenize(sequences: list[str]) -> Tensor:
    """Return fair-esm's tokens, padded: ``[B, T]``."""
    _, _, tokens = ALPHABET.get_batch_converter()([("", sequence) for sequence in sequences])
    return tokens
