"""What stands where engine and store would be, so that only what is around them is measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.batchfile import Record, encode_batch
from common.layout import manifest_key
from common.ledger import Ledger, WorkerInfo
from common.manifest import Manifest, OutputForm
from common.modeltable import MODELS, ModelSource
from common.rungs import Rung
from common.store import FileStore, Store
from tests.support.shards import embeddings_of
from workers.engine import Outcome
from workers.heartbeat import Heartbeat
from workers.tasks import BatchRunner

MODEL = ModelSource.parse("random:esm2_t33_650M_UR50D")
WORKER = WorkerInfo(
    name="cuda0-12345@host.example.org",
    model=MODEL.text,
    weights="0" * 16,
    device="NVIDIA H200",
    precision=Rung.FP16,
    queues=tuple(f"{MODEL.queue}.fp16{rung}" for rung in ("", ".selective_fp32", ".fp32")),
)


class StubEngine:
    """Answers at once, with made-up vectors."""

    def __init__(self) -> None:
        self.loaded = SimpleNamespace(
            source=MODEL, fingerprint=WORKER.weights, spec=MODELS[MODEL.name]
        )
        self.records: list[int] = []  # of each batch

    def embed(self, records: Sequence[Record], form: OutputForm, **_: Any) -> Outcome:
        self.records.append(len(records))
        embeddings = embeddings_of(records, form, self.loaded.spec.dim)
        tokens = sum(map(self.loaded.spec.tokens, embeddings.lengths.tolist()))
        return Outcome(embeddings, (), Rung.FP16, tokens, 0.0)


class SameAnswerEngine(StubEngine):
    """Answers every batch with the vectors of the first: a new batch costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Outcome | None = None

    def embed(self, records: Sequence[Record], form: OutputForm, **options: Any) -> Outcome:
        self.answer = self.answer or super().embed(records, form, **options)
        return self.answer


class CountingStore(FileStore):
    """A folder that notes the bytes of each request."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[int] = []
        self.written: list[int] = []

    def get(self, key: str) -> bytes:
        data = super().get(key)
        self.read.append(len(data))
        return data

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        self.written.append(len(data))

    @contextmanager
    def create(self, key: str, *, replace: bool = True) -> Iterator[Path]:
        with super().create(key, replace=replace) as path:
            yield path
            self.written.append(path.stat().st_size)


class OneRecordStore(FileStore):
    """Has the manifest of one job, and of each of its batches the same single record."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        super().__init__(root)
        self.manifest = manifest
        self.batch = encode_batch([Record(row=0, header="record", residues="MKT")])

    def get(self, key: str) -> bytes:
        if key == manifest_key(self.manifest.job):
            return self.manifest.model_dump_json().encode()
        return self.batch


def stub_runner(
    ledger: Ledger, store: Store, engine: StubEngine, worker: WorkerInfo = WORKER
) -> BatchRunner:
    """A worker's real runner around a stub. Its heartbeat is not started."""
    return BatchRunner(
        store=store,
        ledger=ledger,
        engine=engine,  # type: ignore[arg-type]
        heartbeat=Heartbeat(ledger, worker),
        publish=lambda batch: None,
        name=worker.name,
    )
