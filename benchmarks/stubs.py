"""Stubs of the engine, so that only the parts around it are measured."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from common.embeddings.arrays import Embeddings
from common.job.output_form import OutputForm
from common.job.records import Record
from common.ledger.ledger import Ledger
from common.ledger.workers import WorkerInfo
from common.model_source import ModelSource
from common.model_specs import MODELS
from common.rungs import Rung
from common.store import Store
from tests.support.shards import embeddings_of
from workers.batches.lease_renewer import LeaseRenewer
from workers.batches.runner import BatchRunner
from workers.engine.engine import Outcome
from workers.models.loading import LoadedModel
from workers.process.worker import exit_device_lost

MODEL = ModelSource.parse("random:esm2_t33_650M_UR50D")
WORKER = WorkerInfo(
    name="cuda0-12345@host.example.org",
    model=MODEL.text,
    weights="0" * 16,
    device="NVIDIA H200",
    precision=Rung.FP16,
    staging=True,
    queues=tuple(f"{MODEL.queue}.fp16{rung}" for rung in ("", ".selective_fp32", ".fp32")),
)


def worker_of(model: ModelSource, name: str) -> WorkerInfo:
    """Return the description of a worker that has a model on a GPU."""
    queues = tuple(f"{model.queue}.fp16{rung}" for rung in ("", ".selective_fp32", ".fp32"))
    return WORKER.model_copy(update={"name": name, "model": model.text, "queues": queues})


class StubEngine:
    """An engine that answers at once, with random vectors.

    Args:
        dim: the width of the vectors; None: the model's.
    """

    def __init__(self, model: ModelSource = MODEL, dim: int | None = None) -> None:
        spec = MODELS[model.name]
        self.loaded = LoadedModel(
            model=SimpleNamespace(spec=replace(spec, dim=dim or spec.dim)),  # type: ignore[arg-type]
            tokenize=lambda _sequences: None,  # type: ignore[arg-type,return-value]
            source=model,
            fingerprint=WORKER.weights or "",
            model_digest="",
        )
        self.records: list[int] = []  # of each batch

    def embed(self, records: Sequence[Record], form: OutputForm, **_: Any) -> Outcome:
        self.records.append(len(records))
        embeddings = embeddings_of(records, form, self.loaded.spec.dim)
        tokens = sum(map(self.loaded.spec.tokens, embeddings.lengths.tolist()))
        return Outcome(embeddings, (), Rung.FP16, tokens, 0.0)


class SameAnswerEngine(StubEngine):
    """An engine that answers every batch with the vectors of the first one, at no cost."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Outcome | None = None

    def embed(self, records: Sequence[Record], form: OutputForm, **options: Any) -> Outcome:
        self.answer = self.answer or super().embed(records, form, **options)
        return self.answer


class InstantEngine(StubEngine):
    """An engine that answers every batch with its own rows and vectors that are there already.

    It has means alone, of the last layer.
    """

    def __init__(self, model: ModelSource = MODEL, dim: int | None = None) -> None:
        super().__init__(model, dim)
        self.vectors = np.zeros((0, self.loaded.spec.dim), np.float32)

    def embed(self, records: Sequence[Record], form: OutputForm, **_: Any) -> Outcome:
        if len(self.vectors) < len(records):
            shape = 2 * len(records), self.loaded.spec.dim
            self.vectors = np.random.default_rng(0).random(shape, np.float32)
        embeddings = Embeddings.of_records(
            records,
            form,
            precision=Rung.FP16,
            pooled={"mean": self.vectors[: len(records)]},
            residues=None,
        )
        tokens = sum(map(self.loaded.spec.tokens, embeddings.lengths.tolist()))
        return Outcome(embeddings, (), Rung.FP16, tokens, 0.0)


def stub_runner(
    ledger: Ledger, store: Store, engine: StubEngine, worker: WorkerInfo = WORKER
) -> BatchRunner:
    """Return a worker's real runner with a stub engine; its lease renewer is not started."""
    return BatchRunner(
        store=store,
        ledger=ledger,
        engine=engine,  # type: ignore[arg-type]
        renewer=LeaseRenewer(ledger, worker),
        publish=lambda batch: None,
        publish_next=lambda batch: None,
        on_device_lost=exit_device_lost,
        name=worker.name,
        stopping=threading.Event(),
    )
