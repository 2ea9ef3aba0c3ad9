"""Adapters and classification heads on a GPU: transformers and PEFT in FP32 are the oracles."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    EsmForSequenceClassification,
    EsmForTokenClassification,
    PreTrainedModel,
)

from common.job.output_form import OutputForm
from common.job.records import Record
from common.rungs import Rung
from tests.support.adapters import adapted, hidden_of, logits_of, save_adapter, save_model
from workers.engine.engine import DTYPES, Engine
from workers.models.loading import load_model

OF: dict[str, type[PreTrainedModel]] = {
    "class_logits": EsmForSequenceClassification,
    "residue_class_logits": EsmForTokenClassification,
}

#: The largest differences of logits of about 1 by precision.
BOUNDS = {Rung.FP16: 0.05, Rung.BF16: 0.4, Rung.FP32: 1e-3}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    draw = random.Random(0)
    lengths = [1, 40, 300, 7, 1022, *[draw.randint(1, 400) for _ in range(40)]]
    return [
        Record(row, f"p{row}", "".join(draw.choices("LAGVSERTIDPKX", k=length)))
        for row, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> dict[str, Path]:
    """An adapter of a base with each head, by the name of its logits."""
    base = tmp_path_factory.mktemp("models")
    return {
        name: save_adapter(
            base / f"{name} adapter",
            save_model(base / name, of),
            of,
            target_modules=["query", "value", "dense"],
            modules_to_save=["classifier"],
            exclude_modules=".*classifier.*",
        )
        for name, of in OF.items()
    }


@pytest.mark.parametrize("name", OF)
@pytest.mark.parametrize("precision", BOUNDS)
def test_vectors_and_logits_of_classes_are_those_of_peft(adapters, records, name, precision):
    folder = adapters[name]
    oracle = adapted(folder, folder.parent / name, OF[name])
    engine = Engine(load_model(folder, device="cuda", dtype=DTYPES[precision]))
    engine.warm_up()
    engine.pack_tokens = dict.fromkeys(engine.models, 2000)
    form = OutputForm(include=("mean", name), classes=2, max_residues=1022)
    outcome = engine.embed(records, form)
    assert not outcome.unstable
    logits = [logits_of(oracle, record.residues) for record in records]
    rows = torch.stack(logits) if name == "class_logits" else torch.cat([x[1:-1] for x in logits])
    found = outcome.embeddings
    np.testing.assert_allclose(found.scores[name], rows, atol=BOUNDS[precision])
    means = [hidden_of(oracle, record.residues)[1:-1].mean(0) for record in records]
    np.testing.assert_allclose(found.pooled["mean"], torch.stack(means), atol=BOUNDS[precision])
    again = engine.embed(records, form).embeddings
    assert again.scores[name].tobytes() == found.scores[name].tobytes()
