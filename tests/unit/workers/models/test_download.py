"""Weights in the cache of the Hugging Face hub, without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.model_specs import ModelSpec
from tests.support.fair_esm import random_fair_esm
from tests.support.hugging_face import to_hugging_face
from workers.models.loading import load_model

SPEC = ModelSpec(name="esm2_small", layers=2, dim=32, heads=2)

CODE = """
import torch
from workers.models.loading import load_model
print(load_model("esm2_t6_8M_UR50D", dtype=torch.float32).fingerprint)
"""


@pytest.mark.parametrize("has_index", [True, False])
def test_weights_in_parts_are_found_in_the_cache_with_or_without_their_index(tmp_path, has_index):
    """Earlier versions downloaded no index."""
    repository = tmp_path / "hub" / "models--facebook--esm2_t6_8M_UR50D"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    to_hugging_face(random_fair_esm(SPEC)).save_pretrained(snapshot, max_shard_size="50KB")
    if not has_index:
        (snapshot / "model.safetensors.index.json").unlink()
    assert len(list(Path(snapshot).glob("*.safetensors"))) > 1
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == load_model(str(snapshot), dtype=torch.float32).fingerprint
