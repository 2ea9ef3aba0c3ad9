"""Small models of transformers with random weights, and adapters of PEFT trained on nothing."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import EsmConfig, EsmForMaskedLM, PreTrainedModel

from tests.support.fair_esm import tokenize

LAYERS, DIM, HEADS = 3, 64, 4
PROTEINS = ("MKTAYIAKQRX", "G", "LAGVSERTIDPKQNFYMHWC" * 3)


def small_config(**settings: Any) -> EsmConfig:
    """Return the configuration of a small ESM-2."""
    return EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * DIM,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        layer_norm_eps=1e-5,
        **settings,
    )


def save_model(
    folder: Path, of: type[PreTrainedModel] = EsmForMaskedLM, seed: int = 0, **settings: Any
) -> Path:
    """Save a small random model of a class of transformers."""
    torch.manual_seed(seed)
    model = of(small_config(**settings))
    randomise(model)
    model.save_pretrained(folder)
    return folder


def save_adapter(
    folder: Path,
    base: Path,
    of: type[PreTrainedModel] = EsmForMaskedLM,
    seed: int = 1,
    **settings: Any,
) -> Path:
    """Save an adapter of a base, with random numbers in all that could have been trained."""
    with quiet():
        model = get_peft_model(of.from_pretrained(base), LoraConfig(**settings))
        torch.manual_seed(seed)
        randomise(model, only_trained=True)
        model.save_pretrained(folder)
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore what PEFT warns of: deprecations between it and transformers, and usual advice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def randomise(model: nn.Module, *, only_trained: bool = False) -> None:
    """Give the weights random numbers, of a size that makes a difference."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad or not only_trained:
                noise = torch.randn_like(weight)
                is_norm = "LayerNorm" in name or "layer_norm" in name or "magnitude" in name
                weight.copy_(weight + 0.1 * noise if is_norm else 0.2 * noise)


def adapted(
    folder: Path, base: Path, of: type[PreTrainedModel] = EsmForMaskedLM
) -> PreTrainedModel:
    """Return PEFT's own model of an adapter, not merged."""
    with quiet():
        model: PreTrainedModel = PeftModel.from_pretrained(of.from_pretrained(base), folder)
    return model.eval()


@torch.inference_mode()
def hidden_of(model: Any, protein: str) -> torch.Tensor:
    """Return the last layer of a model of transformers or PEFT ``[T, D]``."""
    found = model(input_ids=tokenize([protein]), output_hidden_states=True)
    last: torch.Tensor = found.hidden_states[-1][0]
    return last


@torch.inference_mode()
def logits_of(model: Any, protein: str) -> torch.Tensor:
    """Return what the head of a model gives for one protein."""
    logits: torch.Tensor = model(input_ids=tokenize([protein])).logits[0]
    return logits
