"""The size of packs."""

import pytest
import torch

from common.model_specs import MODELS
from workers.runtime.memory import SMALLEST_PACK_TOKENS, fastest_pack_tokens, packs_ahead


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("esm2_t6_8M_UR50D", 4096),
        ("esm2_t12_35M_UR50D", 2730),
        ("esm2_t30_150M_UR50D", 2048),
        ("esm2_t48_15B_UR50D", SMALLEST_PACK_TOKENS),
    ],
)
def test_a_larger_model_has_smaller_packs_on_a_cpu(name, tokens):
    """Its tensors must stay below the size that the C library returns to the system."""
    assert fastest_pack_tokens(MODELS[name], torch.device("cpu")) == tokens
    assert tokens == SMALLEST_PACK_TOKENS or tokens * 4 * MODELS[name].dim * 4 < 2**25


@pytest.mark.parametrize(
    ("name", "packs"),
    [
        ("esm2_t6_8M_UR50D", 3),
        ("esm2_t12_35M_UR50D", 3),
        ("esm2_t30_150M_UR50D", 1),
        ("esm2_t33_650M_UR50D", 1),
        ("dnabert_s", 1),
    ],
)
def test_of_packs_that_are_soon_done_several_are_queued(name, packs):
    assert packs_ahead(MODELS[name], torch.device("cuda")) == packs
    assert packs_ahead(MODELS[name], torch.device("cpu")) == 1
