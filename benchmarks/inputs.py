"""Inputs of the benchmarks: random proteins with realistic lengths, and models at random."""

from collections.abc import Iterable
from itertools import accumulate

import numpy as np
import torch

from common.alphabet import PROTEIN, SPECIAL_TOKENS
from common.model_specs import ESM2, ModelSpec
from workers.bench.proteins import segment_lengths
from workers.models.encoder import Encoder
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.families import model_class
from workers.models.random_weights import random_scale
from workers.models.tokens import Tokens

LETTERS = np.array(list("LAGVSERTIDPKQNFYMHWC"))


def random_proteins(tokens: int, seed: int = 0) -> list[str]:
    """Return proteins that have exactly ``tokens`` tokens, with ``<cls>`` and ``<eos>`` each."""
    generator = np.random.default_rng(seed)
    lengths = segment_lengths(tokens, ESM2.max_residues + SPECIAL_TOKENS)
    return ["".join(generator.choice(LETTERS, length - SPECIAL_TOKENS)) for length in lengths]


def token_count(lengths: Iterable[int]) -> int:
    """Return the number of tokens of proteins with these lengths in residues."""
    return sum(length + SPECIAL_TOKENS for length in lengths)


def first_proteins(proteins: list[str], tokens: int) -> list[str]:
    """Return the first proteins that together have at most ``tokens`` tokens; at least one."""
    ends = accumulate(token_count([len(protein)]) for protein in proteins)
    return proteins[: max(1, sum(end <= tokens for end in ends))]


def tokens_for(spec: ModelSpec, proteins: list[str]) -> Tokens:
    """Return the proteins' tokens; for DNA, as many random tokens for each."""
    tokens = ESM2_TOKENIZER(proteins)
    if spec.family.alphabet is PROTEIN:
        return tokens
    return Tokens(np.random.default_rng(0).integers(5, 4096, len(tokens.ids)), tokens.cu_seqlens)


@torch.no_grad()
def random_model(spec: ModelSpec, device: torch.device) -> Encoder:
    """Return a model with random FP32 weights, the same on each kind of device every time."""
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(spec)(spec)
    for name, weight in model.named_parameters():
        weight.normal_(0.0, random_scale(name, weight.shape))
        if name.endswith("norm.weight"):
            weight.add_(1.0)
    return model.eval().requires_grad_(False)
