"""An open job, and a worker process that only seems to end."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pytest

from common.job.manifest import write_manifest
from common.wire.messages import Batch
from tests.support.jobs import manifest_of
from tests.support.shards import store_inputs
from tests.support.troubled_store import TroubledStore
from tests.support.worlds import BATCH_RECORDS, RECORDS, EndedError, World


@pytest.fixture
def world_of(ledger, tmp_path) -> Callable[..., World]:
    def make(batch_records: Sequence[int] = BATCH_RECORDS, **options: Any) -> World:
        manifest = manifest_of(batch_records, **options)
        store = TroubledStore(tmp_path / "store")
        store.check_writable()
        manifest = store_inputs(store, manifest, RECORDS[: sum(batch_records)])
        write_manifest(store, manifest)
        ledger.jobs.create(manifest, f"random.esm2_t6_8M_UR50D.{manifest.rung}")
        store.written.clear()
        return World(ledger, store, manifest)

    return make


@pytest.fixture
def world(world_of) -> World:
    return world_of()


@pytest.fixture
def batch(world) -> Batch:
    return world.manifest.batch(0)


@pytest.fixture
def exits(monkeypatch) -> list[int]:
    """The codes that the process ended with."""
    codes: list[int] = []

    def end(code: int) -> NoReturn:
        codes.append(code)
        raise EndedError

    monkeypatch.setattr(os, "_exit", end)
    return codes
