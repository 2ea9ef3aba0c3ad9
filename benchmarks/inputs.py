"""What the benchmarks run: proteins as long as real ones, and models whose weights mean nothing."""

from collections.abc import Iterable
from itertools import accumulate

import numpy as np
import torch

from common.alphabet import SPECIAL_TOKENS
from common.model_specs import ESM2, ModelSpec
from workers.bench.proteins import segment_lengths
from workers.models.encoder import Encoder
from workers.models.esm2.tokenizer import ESM2_TOKENIZER
from workers.models.families import model_class
from workers.models.random_weights import random_scale
from workers.models.tokens import Tokens

LETTERS = np.array(list("LAGVSERTIDPKQNFYMHWC"))


def random_proteins(tokens: int, seed: int = 0) -> list[str]:
    """Proteins that fill exactly ``tokens`` with ``<cls>`` and ``<eos>`` each."""
    generator = np.random.default_rng(seed)
    lengths = segment_lengths(tokens, ESM2.max_residues + SPECIAL_TOKENS)
    return ["".join(generator.choice(LETTERS, length - SPECIAL_TOKENS)) for length in lengths]


def token_count(lengths: Iterable[int]) -> int:
    """Tokens of proteins of so many residues."""
    return sum(length + SPECIAL_TOKENS for length in lengths)


def first_proteins(proteins: list[str], tokens: int) -> list[str]:
    """The first ones, as many as ``tokens`` has room for; at least one."""
    ends = accumulate(token_count([len(protein)]) for protein in proteins)
    return proteins[: max(1, sum(end <= tokens for end in ends))]


def tokens_for(spec: ModelSpec, proteins: list[str]) -> Tokens:
    """The proteins' tokens; for DNA, random tokens of the same number for each."""
    tokens = ESM2_TOKENIZER(proteins)
    if spec.family is ESM2:
        return tokens
    return Tokens(np.random.default_rng(0).integers(5, 4096, len(tokens.ids)), tokens.cu_seqlens)


@torch.no_grad()
def random_model(spec: ModelSpec, device: torch.device) -> Encoder:
    """FP32 weights of the usual size, drawn on the device; there, the same every time."""
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(spec)(spec)
    for name, weight in model.named_parameters():
        weight.normal_(0.0, random_scale(name, weight.shape))
        if name.endswith("norm.weight"):
            weight.add_(1.0)
    return model.eval().requires_grad_(False)
